"""Access-log entries of Envoy to observations; the only file here that sees protobuf."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from meter.ingest.ending import EntryFacts, flags_text, observation_from_facts
from meter.protos import access_log_pb2 as pb
from meter.usage.usage import Observation, Source

DECISION_NAMESPACE: Final = "envoy.filters.http.ext_authz"
USAGE_NAMESPACE: Final = "tollkeeper.usage"
UPSTREAM_NAMESPACE: Final = "tollkeeper.upstream"
GENERATION_ID_HEADER: Final = "x-generation-id"

# Other types describe moments within a request: counting them would settle it twice.
_FINAL_TYPES: Final = frozenset({pb.AccessLogType.NotSet, pb.AccessLogType.DownstreamEnd})

# Envoy's own short names (docs: %RESPONSE_FLAGS%), by field of ResponseFlags.
_FLAG_NAMES: Final = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}


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
    facts = EntryFacts(
        hold_id=decision.get("hold_id"),
        started_at=_started_at(common),
        duration_ms=_ms(common.duration),
        first_byte_ms=_ms(common.time_to_first_upstream_rx_byte) if has_first_byte else None,
        status_code=response.response_code.value,
        status_details=response.response_code_details,
        flags=_flags(common.response_flags),
        reached_provider=common.HasField("time_to_first_upstream_tx_byte"),
        is_streaming=decision.get("is_streaming"),
        generation_id=response.response_headers.get(GENERATION_ID_HEADER),
        usage=_fields(namespaces, USAGE_NAMESPACE),
        upstream_status=_fields(namespaces, UPSTREAM_NAMESPACE).get("status"),
        response_bytes=response.response_body_bytes,
    )
    return observation_from_facts(facts, Source.STREAM)


def response_flags(flags: pb.ResponseFlags) -> str:
    """The flags by Envoy's short names, comma-separated; empty where there are none."""
    return flags_text(_flags(flags))


def _flags(flags: pb.ResponseFlags) -> list[str]:
    return [_FLAG_NAMES[field.name] for field, _ in flags.ListFields() if field.name in _FLAG_NAMES]


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


def _started_at(common: pb.AccessLogCommon) -> datetime:
    start = common.start_time
    return datetime.fromtimestamp(start.seconds, UTC) + timedelta(microseconds=start.nanos // 1000)


def _ms(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000
