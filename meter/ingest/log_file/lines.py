"""Lines of Envoy's JSON access log to what they mean for the books. Pure.

Numbers: Envoy keeps them as doubles and prints each in the shortest form that reads back as the
same double. They are read back as just that, so that the decimal taken from its shortest text
(`meter.ingest.usage_text`) is digit for digit the one that the stream's entry gives.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple
from uuid import UUID

import msgspec

from meter.holds.abandoned_check import UndecidedRequest
from meter.ingest.ending import (
    FROM_UPSTREAM,
    NOTHING_NOTED,
    EntryFacts,
    NotedUsage,
    Scalar,
    hold_id_bytes,
)
from meter.usage.response_flags import join_flags

# Other types describe moments within a request: counting them would settle it twice.
FINAL_TYPES: Final = frozenset({"NotSet", "DownstreamEnd"})
# Each of them is checked before it goes to a provider. Routes of decisions are chosen later.
INFERENCE_ROUTES: Final = frozenset(
    {"inference", "inference_responses", "inference_messages", "inference_others"}
)
# The decision arrived and said no: nothing was held, or it was taken back by authz.
DENIED: Final = "ext_authz_denied"
FIRST_SERVER_ERROR: Final = 500
NO_FLAGS: Final = "-"
ORDINARY_CODE: Final = 200
LINE_START: Final = b'{"'
# How many beginnings of a line are tried within one that cannot be read.
MOST_BEGINNINGS: Final = 64

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class _Line(msgspec.Struct, gc=False):
    """The members of a line that are read; all others are passed over.

    Each of them must be there: a line of another form must not say that nothing was sent upstream.
    Only the line of an ordinary request, `code` 200 without flags, may be short: without a type,
    which is that of a final entry, a route and a status that the client was not sent.
    """

    start_time: _Instant
    code: _Count
    flags: str
    details: str | None
    duration_ms: _Count
    upstream_sent_ms: _Count | None
    first_upstream_byte_ms: _Count | None
    request_id: str | None
    hold_id: Scalar
    generation_id: Scalar
    is_streaming: Scalar
    response_bytes: _Count
    usage: NotedUsage | None
    type: str | None = None
    route: str | None = None
    upstream_status: Scalar | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Refuse a short line that is not of an ordinary request; msgspec calls this."""
        is_short = self.type is None or self.upstream_status is msgspec.UNSET
        if is_short and (self.code != ORDINARY_CODE or self.flags != NO_FLAGS):
            raise ValueError("a short line of a request that is not ordinary")


_LINE: Final = msgspec.json.Decoder(_Line)


class LogLine(NamedTuple):
    """The meaning of one line, and when its request ended.

    `meaning` is None for a request that concerns no hold. `is_torn` says that the line began with
    the rest of another, whose end was never written.
    """

    ended_at: datetime
    meaning: EntryFacts | UndecidedRequest | None
    is_torn: bool = False


def read_line(line: bytes) -> LogLine:
    """Understand one line; raises ValueError for what is no whole entry of the configured form."""
    try:
        found, is_torn = _LINE.decode(line), False
    except (ValueError, RecursionError):
        found, is_torn = _behind_a_torn_one(line), True
    try:
        started_at = found.start_time.astimezone(UTC)
        ended_at = started_at + timedelta(milliseconds=found.duration_ms)
    except OverflowError as error:
        raise ValueError("not an access-log entry: a time beyond the calendar") from error
    if found.type is not None and found.type not in FINAL_TYPES:
        return LogLine(ended_at, None, is_torn)
    if found.hold_id is not None:
        return LogLine(ended_at, _facts(found, started_at), is_torn)
    if not _is_undecided(found):
        return LogLine(ended_at, None, is_torn)
    if found.request_id is None:
        raise ValueError("not an access-log entry: a request without an id")
    return LogLine(ended_at, UndecidedRequest(UUID(found.request_id), ended_at), is_torn)


def _facts(line: _Line, started_at: datetime) -> EntryFacts | None:
    hold_id = hold_id_bytes(line.hold_id)
    if hold_id is None:
        return None
    flags = line.flags
    return EntryFacts(
        hold_id,
        started_at,
        line.duration_ms,
        line.first_upstream_byte_ms,
        line.code,
        line.details == FROM_UPSTREAM,
        "" if flags == NO_FLAGS else join_flags(flags.split(",")),
        line.upstream_sent_ms,
        line.is_streaming is True or line.is_streaming == "true",
        line.generation_id,
        NOTHING_NOTED if line.usage is None else line.usage,
        None if line.upstream_status is msgspec.UNSET else line.upstream_status,
        line.response_bytes,
    )


def _is_undecided(line: _Line) -> bool:
    """Return whether a check may have placed a hold whose answer never took effect.

    The client left, the check took too long or authz died. Statuses below 500 are Envoy's own
    refusals from before the check, such as 413.
    """
    if line.route not in INFERENCE_ROUTES or line.details == DENIED:
        return False
    if line.upstream_sent_ms is not None:
        return False
    return line.code == 0 or line.code >= FIRST_SERVER_ERROR


def _behind_a_torn_one(line: bytes) -> _Line:
    """Return the entry that follows a torn line without a line feed between them.

    A writer that is killed leaves the beginning of a line, and its successor goes on behind it.
    Strings hold no bare quote, so what reads to the end of the line is the later entry. Raises
    ValueError where there is none.
    """
    start = 0
    for _ in range(MOST_BEGINNINGS):
        start = line.find(LINE_START, start + 1)
        if start < 0:
            break
        try:
            return _LINE.decode(line[start:])
        except (ValueError, RecursionError):
            continue
    raise ValueError("not an access-log entry")
