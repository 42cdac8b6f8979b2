"""Lines of Envoy's JSON access log to what they mean for the books. Pure.

Numbers: Envoy keeps them as doubles and prints each in the shortest form that reads back as the
same double. They are read back as just that, so that the decimal taken from its shortest text
(`meter.ingest.usage_text`) is digit for digit the one that the stream's entry gives.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from meter.holds.abandoned_check import UndecidedRequest
from meter.ingest.ending import EntryFacts, observation_from_facts
from meter.usage.usage import Observation, Source

# Other types describe moments within a request: counting them would settle it twice.
FINAL_TYPES: Final = frozenset({"NotSet", "DownstreamEnd"})
INFERENCE_ROUTE: Final = "inference"
# The decision arrived and said no: nothing was held, or it was taken back by authz.
DENIED: Final = "ext_authz_denied"
FIRST_SERVER_ERROR: Final = 500
NO_FLAGS: Final = "-"
LINE_START: Final = b'{"'
# How many beginnings of a line are tried within one that does not parse.
MOST_BEGINNINGS: Final = 64

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogLine:
    """The meaning of one line, and when its request ended.

    `meaning` is None for a request that concerns no hold. `is_torn` says that the line began with
    the rest of another, whose end was never written.
    """

    ended_at: datetime
    meaning: Observation | UndecidedRequest | None
    is_torn: bool = False


def read_line(line: bytes) -> LogLine:
    """Understand one line; raises ValueError for what is no whole entry of the configured form."""
    fields, is_torn = _parse(line)
    try:
        started_at = datetime.fromisoformat(fields["start_time"])
        if started_at.tzinfo is None:
            raise ValueError("a time without a zone")
        started_at = started_at.astimezone(UTC)
        ended_at = started_at + timedelta(milliseconds=_whole(fields["duration_ms"]))
        if fields["type"] not in FINAL_TYPES:
            return LogLine(ended_at, None, is_torn)
        meaning: Observation | UndecidedRequest | None = None
        if fields["hold_id"] is not None:
            meaning = observation_from_facts(_facts(fields, started_at), Source.FILE)
        elif _is_undecided(fields):
            meaning = UndecidedRequest(UUID(fields["request_id"]), ended_at)
        return LogLine(ended_at, meaning, is_torn)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an access-log entry ({type(error).__name__})") from error


def _facts(fields: Fields, started_at: datetime) -> EntryFacts:
    flags = fields["flags"]
    return EntryFacts(
        hold_id=fields["hold_id"],
        started_at=started_at,
        duration_ms=_whole(fields["duration_ms"]),
        first_byte_ms=_whole_or_none(fields["first_upstream_byte_ms"]),
        status_code=_whole(fields["code"]),
        status_details=fields["details"],
        flags=() if flags == NO_FLAGS else flags.split(","),
        # The member must be there: a line of another form must not release a hold.
        upstream_sent_ms=_whole_or_none(fields["upstream_sent_ms"]),
        is_streaming=fields["is_streaming"],
        generation_id=fields["generation_id"],
        usage=_scalars(fields["usage"]),
        upstream_status=fields["upstream_status"],
        response_bytes=_whole(fields["response_bytes"]),
    )


def _is_undecided(fields: Fields) -> bool:
    """Return whether a check may have placed a hold whose answer never took effect.

    The client left, the check took too long or authz died. Statuses below 500 are Envoy's own
    refusals from before the check, such as 413.
    """
    if fields["route"] != INFERENCE_ROUTE or fields["details"] == DENIED:
        return False
    if fields["upstream_sent_ms"] is not None:
        return False
    code = _whole(fields["code"])
    return code == 0 or code >= FIRST_SERVER_ERROR


def _parse(line: bytes) -> tuple[Fields, bool]:
    """The members of a line; also where a torn line goes before it without a line feed.

    A writer that is killed leaves the beginning of a line, and its successor goes on behind it.
    Strings hold no bare quote, so what parses to the end of the line is the later entry.
    """
    try:
        return _object(line), False
    except ValueError:
        start = 0
        for _ in range(MOST_BEGINNINGS):
            start = line.find(LINE_START, start + 1)
            if start < 0:
                break
            try:
                return _object(line[start:]), True
            except ValueError:
                continue
        raise


def _object(text: bytes) -> Fields:
    try:
        fields = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict) or "start_time" not in fields:
        raise ValueError("not an access-log entry")
    return fields


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a count")
    return value


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)


def _scalars(usage: object) -> Fields:
    """Extracted members that are no objects, as the stream's translation keeps them."""
    if not isinstance(usage, dict):
        return {}
    return {key: value for key, value in usage.items() if isinstance(value, str | int | float)}
