"""Lines of Envoy's file log as the stream would have carried them."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf import struct_pb2

from meter.protos import access_log_pb2 as pb
from meter.usage.response_flags import SHORT_NAMES

_FIELDS: Final = {flag: field for field, flag in SHORT_NAMES.items()}
_DECISION: Final = ("hold_id", "account_id", "credential_id", "model", "endpoint", "is_streaming")


def message_from_lines(lines: Iterable[str]) -> bytes:
    """One StreamAccessLogs message with an entry for each line."""
    message = pb.StreamAccessLogsMessage()
    message.identifier.log_name = "replayed"
    for line in lines:
        _fill(message.http_logs.log_entry.add(), json.loads(line))
    return message.SerializeToString()


def _fill(entry: pb.HTTPAccessLogEntry, line: dict[str, Any]) -> None:
    common = entry.common_properties
    common.start_time.FromDatetime(datetime.fromisoformat(line["start_time"]))
    common.duration.FromTimedelta(_ms(line.get("duration_ms")))
    if line["upstream_sent_ms"] is not None:
        common.time_to_first_upstream_tx_byte.FromTimedelta(_ms(line["upstream_sent_ms"]))
    if line["first_upstream_byte_ms"] is not None:
        common.time_to_first_upstream_rx_byte.FromTimedelta(_ms(line["first_upstream_byte_ms"]))
    if line.get("upstream_attempts"):
        common.upstream_request_attempt_count = int(line["upstream_attempts"])
    common.access_log_type = getattr(pb.AccessLogType, line.get("type", "DownstreamEnd"))
    common.stream_id = line.get("request_id") or ""
    _fill_metadata(common.metadata, line)
    for flag in (line.get("flags") or "-").split(","):
        # The details of a refusal are a message, not a flag; refused requests have no hold.
        if flag in _FIELDS and flag != "UAEX":
            setattr(common.response_flags, _FIELDS[flag], True)
    _fill_response(entry.response, line)


def _fill_response(response: pb.HTTPResponseProperties, line: dict[str, Any]) -> None:
    if line["code"]:
        response.response_code.value = int(line["code"])
    response.response_code_details = line["details"] or ""
    response.response_body_bytes = int(line["response_bytes"])
    if line["generation_id"]:
        response.response_headers["x-generation-id"] = line["generation_id"]


def _fill_metadata(metadata: pb.Metadata, line: dict[str, Any]) -> None:
    decision = {name: line[name] for name in _DECISION if line.get(name) is not None}
    metadata.filter_metadata["envoy.filters.http.ext_authz"].CopyFrom(_struct(decision))
    if isinstance(line.get("usage"), dict):
        metadata.filter_metadata["tollkeeper.usage"].CopyFrom(_struct(line["usage"]))
    if line.get("upstream_status") is not None:
        status = {"status": line["upstream_status"]}
        metadata.filter_metadata["tollkeeper.upstream"].CopyFrom(_struct(status))


def _struct(fields: dict[str, Any]) -> struct_pb2.Struct:
    found = struct_pb2.Struct()
    found.update(fields)
    return found


def _ms(value: Any) -> timedelta:
    return timedelta(milliseconds=int(value or 0))
