"""Usage records as events of Lago and as CloudEvents: the same record is always the same bytes.

Lago tells events apart by transaction id and timestamp, CloudEvents by source and id. A correction
is an event of its own with differences, as it is a record of its own here. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from meter.exports.export import format_instant
from meter.exports.sink import SinkKind, SinkTerms
from meter.money import DECIMAL_PLACES, format_usd

_CENTS_EXPONENT: Final = DECIMAL_PLACES - 2


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One event: its position, its account, and its text as the sink gets it."""

    position: int
    account_id: str
    text: str
    # None for an event that is sent again after it was parked.
    recorded_at: datetime | None = None


def usage_event(row: Mapping[str, Any], terms: SinkTerms) -> UsageEvent:
    """Return the event of a usage record."""
    event_id = f"{row['hold_id']}:{row['revision']}"
    properties = {
        "kind": row["kind"],
        "model": row["model_id"],
        "endpoint": row["endpoint"],
        "key_id": row["credential_id"],
        "input": row["prompt_tokens"],
        "output": row["completion_tokens"],
        "cache_read": row["cached_tokens"],
        "cache_write": row["cache_write_tokens"],
        "reasoning": row["reasoning_tokens"],
        "charge": format_usd(int(row["charge_picos"])),
        "provider_cost": format_usd(int(row["provider_cost_picos"])),
        "started_at": format_instant(row["started_at"]),
    }
    if row["own_key_cost_picos"] is not None:
        # Only where there is one, so that records of before have the bytes that they had.
        properties["own_key_cost"] = format_usd(int(row["own_key_cost_picos"]))
    if terms.kind is SinkKind.LAGO:
        cents = Decimal(int(row["charge_picos"])).scaleb(-_CENTS_EXPONENT)
        event: dict[str, Any] = {
            "transaction_id": event_id,
            "external_subscription_id": row["account_id"],
            "code": terms.event_code,
            "timestamp": f"{row['recorded_at'].timestamp():.3f}",
            "precise_total_amount_cents": f"{cents.normalize():f}",
            "properties": properties,
        }
    else:
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": terms.source,
            "type": terms.event_code,
            "subject": row["account_id"],
            "time": format_instant(row["recorded_at"]),
            "datacontenttype": "application/json",
            "data": properties,
        }
    text = json.dumps(event, separators=(",", ":"))
    return UsageEvent(row["seq"], row["account_id"], text, row["recorded_at"])


def batch_body(kind: SinkKind, events: Sequence[UsageEvent]) -> bytes:
    """Return the body that has these events."""
    listed = f"[{','.join(event.text for event in events)}]"
    return (f'{{"events":{listed}}}' if kind is SinkKind.LAGO else listed).encode()
