"""Access-log entries of Envoy to observations; the only file here that sees protobuf."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from meter.ingest.ending import EntryFacts, observation_from_facts
from meter.protos import access_log_pb2 as pb
from meter.usage.response_flags import SHORT_NAMES
from meter.usage.usage import Observation, Source

DECISION_NAMESPACE: Final = "envoy.filters.http.ext_authz"
USAGE_NAMESPACE: Final = "tollkeeper.usage"
UPSTREAM_NAMESPACE: Final = "tollkeeper.upstream"
GENERATION_ID_HEADER: Final = "x-generation-id"

# Other types describe moments within a request: counting them would settle it twice.
_FINAL_TYPES: Final = frozenset({pb.AccessLogType.NotSet, pb.AccessLogType.DownstreamEnd})


def observations_from_message(payload: bytes) -> Iterator[Observation]:
    """The finished, held requests that one StreamAccessLogsMessage tells of.

    Entries without a hold were denied or never decided: they owe nothing and are passed over.
    Raises ValueError when the payload is no such message.
    """
    try:
        message = pb.StreamAccessLogsMessage.FromString(payload)
    except DecodeError as error:
        raise ValueError("not a StreamAccessLogsMessage") from error
    for entry in message.http_logs.log_entry:
        if entry.common_properties.access_log_type in _FINAL_TYPES:
            observation = _observation(entry)
            if observation is not None:
                yield observation


def _observation(entry: pb.HTTPAccessLogEntry) -> Observation | None:
    common, response = entry.common_properties, entry.response
    namespaces = common.metadata.filter_metadata
    decision = _fields(namespaces, DECISION_NAMESPACE)
    has_first_byte = common.HasField("time_to_first_upstream_rx_byte")
    start = common.start_time
    was_sent = common.HasField("time_to_first_upstream_tx_byte")
    facts = EntryFacts(
        hold_id=decision.get("hold_id"),
        started_at=datetime.fromtimestamp(start.seconds, UTC)
        + timedelta(microseconds=start.nanos // 1000),
        duration_ms=_ms(common.duration),
        first_byte_ms=_ms(common.time_to_first_upstream_rx_byte) if has_first_byte else None,
        status_code=response.response_code.value,
        status_details=response.response_code_details,
        flags=short_flags(common.response_flags),
        upstream_sent_ms=_ms(common.time_to_first_upstream_tx_byte) if was_sent else None,
        is_streaming=decision.get("is_streaming"),
        generation_id=response.response_headers.get(GENERATION_ID_HEADER),
        usage=_fields(namespaces, USAGE_NAMESPACE),
        upstream_status=_fields(namespaces, UPSTREAM_NAMESPACE).get("status"),
        response_bytes=response.response_body_bytes,
    )
    return observation_from_facts(facts, Source.STREAM)


def short_flags(flags: pb.ResponseFlags) -> list[str]:
    """Return the short names of the flags that are set; flags that are not known are left out."""
    return [SHORT_NAMES[field.name] for field, _ in flags.ListFields() if field.name in SHORT_NAMES]


def _fields(namespaces: Any, name: str) -> dict[str, Any]:
    """A metadata namespace as a flat dict of scalars; nested values are left out."""
    if name not in namespaces:
        return {}
    scalars: dict[str, Any] = {}
    for key, value in namespaces[name].fields.items():
        kind = value.WhichOneof("kind")
        if kind in ("string_value", "number_value", "bool_value"):
            scalars[key] = getattr(value, kind)
    return scalars


def _ms(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000
