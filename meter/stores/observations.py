"""Observations as JSON, where the database keeps one until more is known."""

import json
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from meter.usage import Observation, ReportedUsage, Source, TokenCounts


def observation_to_json(observation: Observation) -> str:
    """Write an observation; decimals and instants as text."""
    return json.dumps(asdict(observation), default=str)


def observation_from_json(text: str) -> Observation:
    """Read what `observation_to_json` wrote."""
    fields: dict[str, Any] = json.loads(text)
    fields["hold_id"] = UUID(fields["hold_id"])
    fields["started_at"] = datetime.fromisoformat(fields["started_at"])
    fields["source"] = Source(fields["source"])
    fields["usage"] = _usage(fields["usage"])
    return Observation(**fields)


def _usage(fields: dict[str, Any] | None) -> ReportedUsage | None:
    if fields is None:
        return None
    return ReportedUsage(
        tokens=TokenCounts(**fields["tokens"]),
        cost_usd=_decimal(fields["cost_usd"]),
        upstream_cost_usd=_decimal(fields["upstream_cost_usd"]),
        is_byok=fields["is_byok"],
    )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
