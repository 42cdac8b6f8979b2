"""Reads a finished request alike from either of Envoy's two logs.

Both translations, of the stream and of the file, come down to `EntryFacts`; from there on there is
one reading, so that the same request always makes the same observation. Facts are equal where the
two logs tell the same, so what is settled already is known again before it is read any further.
"""

import math
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from meter.ingest.usage_text import is_lesser, usage_from_json, usage_from_members
from meter.usage.usage import Observation, ReportedUsage, Source

MAX_GENERATION_ID_CHARS: Final = 200
# Envoy's word for a reply that is the upstream's own, from its first byte to its last.
FROM_UPSTREAM: Final = "via_upstream"
HOLD_ID_CHARS: Final = 32

# A number, text or truth value of Envoy's metadata; None where absent.
Scalar = float | str | bool | None


class NotedUsage(msgspec.Struct, frozen=True, gc=False):
    """The usage and the error of a reply as the chain noted them, member by member.

    A JSON reply has the members of its usage object; a stream has the texts of its last and its
    first usage object, and of its error. Only streams of Messages open with usage of their own.
    """

    id: Scalar = None
    prompt_tokens: Scalar = None
    completion_tokens: Scalar = None
    cached_tokens: Scalar = None
    cache_write_tokens: Scalar = None
    reasoning_tokens: Scalar = None
    cost: Scalar = None
    upstream_inference_cost: Scalar = None
    is_byok: Scalar = None
    # Noted off the default path only.
    total_tokens: Scalar = None
    has_error: Scalar = None
    usage_json: Scalar = None
    first_usage_json: Scalar = None
    error_json: Scalar = None
    # The provider that answered; noted off the default path only.
    provider: Scalar = None
    # Of Messages: the prompt's tokens beside those of the cache, and the usage that opens a stream.
    fresh_tokens: Scalar = None
    start_usage_json: Scalar = None
    # The measures of reranking and transcriptions.
    search_units: Scalar = None
    seconds: Scalar = None


NOTHING_NOTED: Final = NotedUsage()
NOTED_MEMBERS: Final = NotedUsage.__struct_fields__


class EntryFacts(NamedTuple):
    """One finished request that had a hold, as a log describes it. Durations are milliseconds.

    The hold id is its 16 bytes. `flags` are in the form of `join_flags`. `is_upstreams` says that
    the reply is the upstream's own, from its first byte to its last, and `upstream_status` is what
    the chain noted of its status. `upstream_sent_ms` is the time until the first byte was sent
    upstream; None where none was sent.
    """

    hold_id: bytes
    started_at: datetime
    duration_ms: int
    first_byte_ms: int | None
    status_code: int
    is_upstreams: bool
    flags: str
    upstream_sent_ms: int | None
    is_streaming: bool
    generation_id: Scalar
    usage: NotedUsage
    upstream_status: Scalar
    response_bytes: int


def hold_id_bytes(text: object) -> bytes | None:
    """Return the bytes of a hold id as the decision writes it; None for anything else."""
    if not isinstance(text, str) or len(text) != HOLD_ID_CHARS:
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    # Blanks between the digits would be passed over.
    return found if len(found) * 2 == HOLD_ID_CHARS else None


def observation_from_facts(facts: EntryFacts, source: Source) -> Observation:
    """Return the observation to settle."""
    sent_ms = facts.upstream_sent_ms
    # By position: names cost more than the object.
    return Observation(
        UUID(bytes=facts.hold_id),
        facts.started_at,
        facts.duration_ms,
        facts.first_byte_ms,
        facts.status_code,
        _provider_status(facts),
        facts.flags,
        sent_ms is not None,
        facts.is_streaming,
        _generation_id(facts),
        _usage(facts.usage),
        source,
        facts.response_bytes,
        _has_error(facts.usage),
        None if sent_ms is None else max(0, facts.duration_ms - sent_ms),
        facts.usage.provider if isinstance(facts.usage.provider, str) else None,
    )


def _provider_status(facts: EntryFacts) -> int | None:
    """Return the status of the provider, even where the client was sent another one."""
    original = _status(facts.upstream_status)
    if original is not None:
        return original
    # A reply that breaks off, or is too large, becomes an error of Envoy's own: not a refusal of
    # the provider, who may have billed it.
    has_answered = facts.first_byte_ms is not None
    return facts.status_code if has_answered and facts.is_upstreams else None


def _status(value: Scalar) -> int | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    return int(value) if math.isfinite(value) else None


def _generation_id(facts: EntryFacts) -> str | None:
    generation_id = facts.generation_id or facts.usage.id
    if not isinstance(generation_id, str):
        return None
    # It comes from outside, and Postgres holds no NUL: one odd id must not stop a settlement.
    visible = generation_id[:MAX_GENERATION_ID_CHARS]
    if not visible.isprintable():
        visible = "".join(filter(str.isprintable, visible))
    return visible or None


def _usage(noted: NotedUsage) -> ReportedUsage | None:
    if not isinstance(noted.usage_json, str):
        return usage_from_members(
            prompt_tokens=noted.prompt_tokens,
            completion_tokens=noted.completion_tokens,
            cached_tokens=noted.cached_tokens,
            cache_write_tokens=noted.cache_write_tokens,
            reasoning_tokens=noted.reasoning_tokens,
            cost=noted.cost,
            upstream_cost=noted.upstream_inference_cost,
            is_byok=noted.is_byok,
            total_tokens=noted.total_tokens,
            fresh_tokens=noted.fresh_tokens,
            search_units=noted.search_units,
            seconds=noted.seconds,
        )
    start_text = noted.start_usage_json if isinstance(noted.start_usage_json, str) else None
    last = usage_from_json(noted.usage_json, start_text)
    earlier = [] if start_text is None else [usage_from_json(start_text)]
    first_text = noted.first_usage_json
    if isinstance(first_text, str) and first_text != noted.usage_json:
        earlier.append(usage_from_json(first_text, start_text))
    # A stream whose last usage is less than an earlier one contradicts itself: which of the two is
    # right is for the provider's record to say.
    for usage in earlier:
        if usage is not None and (last is None or is_lesser(last, usage)):
            return None
    return last


def _has_error(noted: NotedUsage) -> bool:
    """Return whether the reply named an error; a member `"error": null` names none."""
    text = noted.error_json
    return noted.has_error is True or (isinstance(text, str) and text not in ("", "null"))
