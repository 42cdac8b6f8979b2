"""Reads a finished request alike from either of Envoy's two logs.

Both translations, of the stream and of the file, come down to `EntryFacts`; from there on there is
one reading, so that the same request always makes the same observation.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from meter.ingest.usage_text import is_lesser, usage_from_fields, usage_from_json
from meter.usage.response_flags import join_flags
from meter.usage.usage import Observation, ReportedUsage, Source

MAX_GENERATION_ID_CHARS: Final = 200
# Envoy's word for a reply that is the upstream's own, from its first byte to its last.
FROM_UPSTREAM: Final = "via_upstream"


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """One finished request as a log describes it, in Envoy's terms. Durations are milliseconds.

    Members typed `object` come from metadata and may be of any kind, or None where absent.
    `usage` and `upstream_status` are what the chain noted of the reply. `upstream_sent_ms` is the
    time until the first byte was sent upstream; None where none was sent.
    """

    hold_id: object
    started_at: datetime
    duration_ms: int
    first_byte_ms: int | None
    status_code: int
    status_details: str | None
    flags: Iterable[str]
    upstream_sent_ms: int | None
    is_streaming: object
    generation_id: object
    usage: Mapping[str, Any]
    upstream_status: object
    response_bytes: int


def observation_from_facts(facts: EntryFacts, source: Source) -> Observation | None:
    """Return the observation to settle; None for a request without a hold."""
    hold_id = _hold_id(facts.hold_id)
    if hold_id is None:
        return None
    return Observation(
        hold_id=hold_id,
        started_at=facts.started_at,
        latency_ms=facts.duration_ms,
        time_to_first_byte_ms=facts.first_byte_ms,
        status_code=facts.status_code,
        provider_status=_provider_status(facts),
        response_flags=join_flags(facts.flags),
        reached_provider=facts.upstream_sent_ms is not None,
        # A decision over HTTP can only say text.
        is_streaming=facts.is_streaming is True or facts.is_streaming == "true",
        generation_id=_generation_id(facts),
        usage=_usage(facts.usage),
        source=source,
        response_bytes=facts.response_bytes,
        has_error=_has_error(facts.usage),
        upstream_ms=_upstream_ms(facts),
    )


def _hold_id(text: object) -> UUID | None:
    if not isinstance(text, str):
        return None
    try:
        return UUID(hex=text)
    except ValueError:
        return None


def _provider_status(facts: EntryFacts) -> int | None:
    """Return the status of the provider, even where the client was sent another one."""
    original = _status(facts.upstream_status)
    if original is not None:
        return original
    # A reply that breaks off, or is too large, becomes an error of Envoy's own: not a refusal of
    # the provider, who may have billed it.
    has_answered = facts.first_byte_ms is not None
    is_the_providers = has_answered and facts.status_details == FROM_UPSTREAM
    return facts.status_code if is_the_providers else None


def _status(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value)


def _generation_id(facts: EntryFacts) -> str | None:
    generation_id = facts.generation_id or facts.usage.get("id")
    if not isinstance(generation_id, str):
        return None
    # It comes from outside, and Postgres holds no NUL: one odd id must not stop a settlement.
    visible = "".join(filter(str.isprintable, generation_id[:MAX_GENERATION_ID_CHARS]))
    return visible or None


def _usage(fields: Mapping[str, Any]) -> ReportedUsage | None:
    text = fields.get("usage_json")
    if not isinstance(text, str):
        return usage_from_fields(fields)
    last = usage_from_json(text)
    first_text = fields.get("first_usage_json")
    first = usage_from_json(first_text) if isinstance(first_text, str) else None
    # A stream whose last usage is less than its first contradicts itself: which of the two is
    # right is for the provider's record to say.
    is_less = first is not None and (last is None or is_lesser(last, first))
    return None if is_less else last


def _has_error(fields: Mapping[str, Any]) -> bool:
    """Return whether the reply named an error; a member `"error": null` names none."""
    text = fields.get("error_json")
    return fields.get("has_error") is True or (isinstance(text, str) and text not in ("", "null"))


def _upstream_ms(facts: EntryFacts) -> int | None:
    sent_ms = facts.upstream_sent_ms
    return None if sent_ms is None else max(0, facts.duration_ms - sent_ms)
