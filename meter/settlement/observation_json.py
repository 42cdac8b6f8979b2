"""Observations as JSON, where the database keeps one until more is known."""

import json
from dataclasses import asdict, fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts


def observation_to_json(observation: Observation) -> str:
    """Write an observation; decimals and instants as text."""
    return json.dumps(asdict(observation), default=str)


def observation_from_json(text: str) -> Observation:
    """Read what `observation_to_json` wrote, perhaps a later version that knows of more."""
    told: dict[str, Any] = _known(Observation, json.loads(text))
    told["hold_id"] = UUID(told["hold_id"])
    told["started_at"] = datetime.fromisoformat(told["started_at"])
    told["source"] = Source(told["source"])
    told["usage"] = _usage(told["usage"])
    return Observation(**told)


def _usage(told: dict[str, Any] | None) -> ReportedUsage | None:
    if told is None:
        return None
    return ReportedUsage(
        tokens=TokenCounts(**_known(TokenCounts, told["tokens"])),
        cost_usd=_decimal(told["cost_usd"]),
        upstream_cost_usd=_decimal(told["upstream_cost_usd"]),
        is_byok=told["is_byok"],
    )


def _known(kind: type[Observation | TokenCounts], found: dict[str, Any]) -> dict[str, Any]:
    return {member.name: found[member.name] for member in fields(kind) if member.name in found}


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
