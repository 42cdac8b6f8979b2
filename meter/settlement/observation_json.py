"""Observations as JSON: the form in which the database keeps one until more is known."""

import json
from dataclasses import asdict, fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts


def observation_to_json(observation: Observation) -> str:
    """Return an observation as JSON; decimals and instants are text."""
    return json.dumps(asdict(observation), default=str)


def observation_from_json(text: str) -> Observation:
    """Return the observation that `observation_to_json` wrote.

    Members that this version does not know, because a later version wrote them, are left out.
    """
    members: dict[str, Any] = _known(Observation, json.loads(text))
    members["hold_id"] = UUID(members["hold_id"])
    members["started_at"] = datetime.fromisoformat(members["started_at"])
    members["source"] = Source(members["source"])
    usage = members["usage"]
    if usage is not None:
        members["usage"] = ReportedUsage(
            tokens=TokenCounts(**_known(TokenCounts, usage["tokens"])),
            cost_usd=_decimal(usage["cost_usd"]),
            upstream_cost_usd=_decimal(usage["upstream_cost_usd"]),
            is_byok=usage["is_byok"],
        )
    return Observation(**members)


def _known(kind: type[Observation | TokenCounts], found: dict[str, Any]) -> dict[str, Any]:
    return {member.name: found[member.name] for member in fields(kind) if member.name in found}


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
