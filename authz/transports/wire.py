"""Translates Envoy's protobuf: the only file that sees `envoy.service.auth.v3`."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from authz.decision import (
    Allow,
    AllowUnmetered,
    Decision,
    Edit,
    ErrorKind,
    ErrorShape,
    LimitStatus,
    NeedsWholeBody,
    OutageKind,
    Upstream,
    error_body,
)
from authz.headers import (
    REMOVED_CREDENTIALS,
    REMOVED_HEADERS,
    RETRY_AFTER_OUTAGE_S,
    identity_headers,
    limit_headers,
    provider_headers,
    refusal_headers,
)
from authz.protos.ext_authz_pb2 import (
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
)
from authz.request import HEADERS_USED, AuthRequest

GRPC_OK: Final = 0
GRPC_PERMISSION_DENIED: Final = 7
GRPC_UNAVAILABLE: Final = 14
_OVERWRITE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
# Answers of which a part is kept: for so many credentials, and for so many different edits.
CONSTANTS_KEPT: Final = 4_096
# The metadata with a hold id, up to the id: its length is always the same.
_HOLD_ID_PREFIX: Final = (
    CheckResponse(dynamic_metadata=Struct(fields={"hold_id": Value(string_value="0" * 32)}))
    .SerializeToString()
    .removesuffix(b"0" * 32)
)


# This member switches the second check on. The splice passes nothing that has no account.
_NEEDS_WHOLE_BODY: Final = CheckResponse(
    status=Status(code=GRPC_OK),
    ok_response=OkHttpResponse(),
    dynamic_metadata=Struct(fields={"needs_whole_body": Value(bool_value=True)}),
).SerializeToString()


def from_check(payload: bytes) -> AuthRequest | None:
    """Read a CheckRequest; None when it is malformed or not about an HTTP request."""
    try:
        attributes = CheckRequest.FromString(payload).attributes
    except DecodeError:
        return None
    http = attributes.request.http
    if not http.method or not http.path:
        return None
    extensions = attributes.context_extensions
    headers = [
        (header.key, header.raw_value.decode("latin-1") or header.value)
        for header in http.header_map.headers
        if header.key in HEADERS_USED
    ]
    if not headers:
        # Without `encode_raw_headers`, repeated names come joined with a comma.
        headers = [(name, value) for name, value in http.headers.items() if name in HEADERS_USED]
    return AuthRequest(
        http.method,
        http.path,
        tuple(headers),
        http.raw_body or http.body.encode("utf-8", "surrogateescape"),
        attributes.source.address.socket_address.address,
        attributes.source.principal,
        {name: extensions[name] for name in extensions},
    )


def from_decision(decision: Decision, shape: ErrorShape = ErrorShape.OPENAI) -> bytes:
    """Write a decision as a CheckResponse; a refusal has the body of an error in this shape."""
    if isinstance(decision, Allow):
        return _from_allow(decision)
    if isinstance(decision, AllowUnmetered):
        # The headers that name the caller replace those that the client sent under these names.
        response = CheckResponse(
            status=Status(code=GRPC_OK),
            ok_response=OkHttpResponse(
                headers=[_header(name, value) for name, value in identity_headers(decision)],
                headers_to_remove=REMOVED_CREDENTIALS,
                response_headers_to_add=_limit_headers(decision.limits),
            ),
        )
        fields = response.dynamic_metadata.fields
        fields["account_id"].string_value = decision.account_id
        fields["credential_id"].string_value = decision.credential_id
        return response.SerializeToString()
    if isinstance(decision, NeedsWholeBody):
        return _NEEDS_WHOLE_BODY
    kind = decision.reason.value
    if not decision.limits and decision.retry_after_s is None:
        return _constant_deny(kind, decision.message, decision.param, shape)
    headers = [_header(name, value) for name, value in refusal_headers(decision)]
    return _denied(kind, decision.message, decision.param, shape, headers)


def without_parameters(names: Iterable[str]) -> bytes:
    """Write what, behind an allowance, has Envoy take these parameters out of the query."""
    response = OkHttpResponse(query_parameters_to_remove=sorted(names))
    return CheckResponse(ok_response=response).SerializeToString()


@lru_cache(maxsize=len(OutageKind) * len(ErrorShape))
def from_outage(kind: OutageKind, shape: ErrorShape = ErrorShape.OPENAI) -> bytes:
    """Write an outage: Envoy sends it to the client, and counts an error instead of a denial."""
    headers = [_header("retry-after", str(RETRY_AFTER_OUTAGE_S))]
    return CheckResponse(
        status=Status(code=GRPC_UNAVAILABLE),
        error_response=_error(kind.value, kind.value.sentence, None, shape, headers),
    ).SerializeToString()


def _from_allow(allow: Allow) -> bytes:
    # Protobuf merges serialised messages in a row, so what repeats is made only once.
    upstream = allow.upstream
    parts = [
        _constant_allow(allow.provider_key.reveal())
        if upstream is None
        else _allow_upstream(allow, upstream),
        _constant_metadata(
            allow.account_id,
            allow.credential_id,
            allow.model_id,
            allow.endpoint,
            allow.is_streaming,
        ),
        _HOLD_ID_PREFIX,
        allow.hold_id.hex.encode(),
    ]
    if allow.edits and upstream is None:
        parts.append(_edits(allow.edits))
    if allow.limits:
        headers = _limit_headers(allow.limits)
        limits = CheckResponse(ok_response=OkHttpResponse(response_headers_to_add=headers))
        parts.append(limits.SerializeToString())
    return b"".join(parts)


@lru_cache(maxsize=4)
def _constant_allow(provider_key: str) -> bytes:
    return CheckResponse(
        status=Status(code=GRPC_OK),
        ok_response=OkHttpResponse(
            headers=[_header("authorization", f"Bearer {provider_key}")],
            headers_to_remove=REMOVED_HEADERS,
        ),
    ).SerializeToString()


def _allow_upstream(allow: Allow, upstream: Upstream) -> bytes:
    """Write an allowance off the default path. Keys stand in headers only: metadata is logged."""
    fields = {
        "cluster": Value(string_value=upstream.cluster),
        "provider": Value(string_value=upstream.provider),
        "is_own_key": Value(bool_value=upstream.is_own_key),
        "edits": Value(string_value=allow.edits_text),
    }
    if upstream.fallbacks:
        fields["fallbacks"] = Value(string_value=upstream.fallback_names)
    return CheckResponse(
        status=Status(code=GRPC_OK),
        ok_response=OkHttpResponse(
            headers=[_header(name, value) for name, value in provider_headers(allow)],
            headers_to_remove=REMOVED_HEADERS,
        ),
        dynamic_metadata=Struct(fields=fields),
    ).SerializeToString()


@lru_cache(maxsize=CONSTANTS_KEPT)
def _constant_metadata(
    account_id: str, credential_id: str, model_id: str, endpoint: str, is_streaming: bool
) -> bytes:
    fields = {
        "account_id": Value(string_value=account_id),
        "credential_id": Value(string_value=credential_id),
        "model": Value(string_value=model_id),
        "endpoint": Value(string_value=endpoint),
        "is_streaming": Value(bool_value=is_streaming),
    }
    return CheckResponse(dynamic_metadata=Struct(fields=fields)).SerializeToString()


# Many requests have the same edits: they name the prices of a model. Edits with a tag differ.
@lru_cache(maxsize=CONSTANTS_KEPT)
def _edits(edits: tuple[Edit, ...]) -> bytes:
    # One text: Envoy copies all metadata at each look at one member, and a list of objects is dear.
    fields = {"edits": Value(string_value="".join(edit.to_text() for edit in edits))}
    return CheckResponse(dynamic_metadata=Struct(fields=fields)).SerializeToString()


@lru_cache(maxsize=256)
def _constant_deny(kind: ErrorKind, message: str, param: str | None, shape: ErrorShape) -> bytes:
    return _denied(kind, message, param, shape, [])


def _denied(
    kind: ErrorKind,
    message: str,
    param: str | None,
    shape: ErrorShape,
    headers: list[HeaderValueOption],
) -> bytes:
    return CheckResponse(
        status=Status(code=GRPC_PERMISSION_DENIED, message=kind.code),
        denied_response=_error(kind, message, param, shape, headers),
    ).SerializeToString()


def _error(
    kind: ErrorKind,
    message: str,
    param: str | None,
    shape: ErrorShape,
    headers: list[HeaderValueOption],
) -> DeniedHttpResponse:
    return DeniedHttpResponse(
        status=HttpStatus(code=kind.status),
        headers=[_header("content-type", "application/json"), *headers],
        body=error_body(kind, message, param, shape),
    )


def _limit_headers(limits: tuple[LimitStatus, ...]) -> list[HeaderValueOption]:
    return [_header(name, value) for name, value in limit_headers(limits)]


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=_OVERWRITE)
