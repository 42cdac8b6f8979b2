"""Access-log entries of Envoy to facts; the only file here that sees protobuf.

It runs once for each request, so it asks for members by name and only where they are there: most
of the time of reading an entry is spent in crossing from Python into protobuf.
"""

from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value

from meter.ingest.ending import (
    FROM_UPSTREAM,
    NOTED_MEMBERS,
    NOTHING_NOTED,
    EntryFacts,
    NotedUsage,
    Scalar,
    hold_id_bytes,
)
from meter.protos import access_log_pb2 as pb
from meter.usage.response_flags import SHORT_NAMES, join_flags

DECISION_NAMESPACE: Final = "envoy.filters.http.ext_authz"
USAGE_NAMESPACE: Final = "tollkeeper.usage"
UPSTREAM_NAMESPACE: Final = "tollkeeper.upstream"
GENERATION_ID_HEADER: Final = "x-generation-id"

# Other types describe moments within a request: counting them would settle it twice.
_FINAL_TYPES: Final = frozenset({pb.AccessLogType.NotSet, pb.AccessLogType.DownstreamEnd})


def facts_from_message(payload: bytes) -> list[EntryFacts]:
    """Return the finished, held requests that one StreamAccessLogsMessage tells of.

    Entries without a hold were denied or never decided: they owe nothing and are passed over.
    Raises ValueError when the payload is no such message.
    """
    try:
        message = pb.StreamAccessLogsMessage.FromString(payload)
    except DecodeError as error:
        raise ValueError("not a StreamAccessLogsMessage") from error
    entries = map(_facts, message.http_logs.log_entry)
    return [facts for facts in entries if facts is not None]


def _facts(entry: pb.HTTPAccessLogEntry) -> EntryFacts | None:
    common = entry.common_properties
    if common.access_log_type not in _FINAL_TYPES:
        return None
    namespaces = common.metadata.filter_metadata
    if DECISION_NAMESPACE not in namespaces:
        return None
    decision = namespaces[DECISION_NAMESPACE].fields
    hold_id = hold_id_bytes(_member(decision, "hold_id"))
    if hold_id is None:
        return None
    response, start = entry.response, common.start_time
    has_first_byte = common.HasField("time_to_first_upstream_rx_byte")
    was_sent = common.HasField("time_to_first_upstream_tx_byte")
    has_flags = common.HasField("response_flags")
    is_streaming = _member(decision, "is_streaming")
    headers = response.response_headers
    usage, upstream_status = NOTHING_NOTED, None
    if USAGE_NAMESPACE in namespaces:
        noted = namespaces[USAGE_NAMESPACE].fields
        usage = NotedUsage(
            *[_scalar(noted[name]) if name in noted else None for name in NOTED_MEMBERS]
        )
    if UPSTREAM_NAMESPACE in namespaces:
        upstream_status = _member(namespaces[UPSTREAM_NAMESPACE].fields, "status")
    return EntryFacts(
        hold_id,
        datetime.fromtimestamp(start.seconds, UTC).replace(microsecond=start.nanos // 1000),
        _ms(common.duration),
        _ms(common.time_to_first_upstream_rx_byte) if has_first_byte else None,
        response.response_code.value,
        response.response_code_details == FROM_UPSTREAM,
        join_flags(short_flags(common.response_flags)) if has_flags else "",
        _ms(common.time_to_first_upstream_tx_byte) if was_sent else None,
        # A decision over HTTP can only say text.
        is_streaming is True or is_streaming == "true",
        headers.get(GENERATION_ID_HEADER),
        usage,
        upstream_status,
        response.response_body_bytes,
    )


def short_flags(flags: pb.ResponseFlags) -> list[str]:
    """Return the short names of the flags that are set; flags that are not known are left out."""
    return [SHORT_NAMES[field.name] for field, _ in flags.ListFields() if field.name in SHORT_NAMES]


def _member(fields: Any, name: str) -> Scalar:
    return _scalar(fields[name]) if name in fields else None


def _scalar(value: Value) -> Scalar:
    """Return a value of a metadata namespace; None for one that is nested or null."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return value.number_value
    if kind == "string_value":
        return value.string_value
    return value.bool_value if kind == "bool_value" else None


def _ms(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000
