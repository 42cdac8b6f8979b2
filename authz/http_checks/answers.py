"""Decisions as HTTP answers, in the shape that each kind of proxy understands."""

from dataclasses import dataclass, field
from typing import Final

from authz.decision import (
    Allow,
    AllowUnmetered,
    Decision,
    Edit,
    ErrorKind,
    NeedsWholeBody,
    OutageKind,
    error_body,
)
from authz.headers import (
    REMOVED_CREDENTIALS,
    REMOVED_HEADERS,
    RETRY_AFTER_OUTAGE_S,
    Header,
    identity_headers,
    limit_headers,
    refusal_headers,
)
from authz.http_checks.targets import Form

# Envoy removes what this header of an answer names from the request that goes on.
REMOVE_HEADER: Final = "x-envoy-auth-headers-to-remove"
# nginx passes on nothing but 401 and 403: it learns the rest from these, and may say it itself.
STATUS_HEADER: Final = "x-tollkeeper-status"
ERROR_HEADER: Final = "x-tollkeeper-error"
CHALLENGE: Final = ("www-authenticate", 'Bearer realm="tollkeeper"')
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
_FIRST_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status, headers with lower-case names, and a body. The headers hold a provider's key."""

    status: int
    headers: tuple[Header, ...] = field(repr=False)
    body: bytes = b""


def to_answer(verdict: Decision | OutageKind, form: Form) -> HttpAnswer:
    """The answer that a proxy of this kind is given."""
    if isinstance(verdict, Allow):
        return _allowed(verdict)
    if isinstance(verdict, AllowUnmetered):
        return _allowed_unmetered(verdict, form)
    if isinstance(verdict, NeedsWholeBody):
        return HttpAnswer(200, (("needs_whole_body", "true"),))
    if isinstance(verdict, OutageKind):
        retry = [("retry-after", str(RETRY_AFTER_OUTAGE_S))]
        return _refused(verdict.value, verdict.value.sentence, None, retry, form)
    kind, headers = verdict.reason.value, refusal_headers(verdict)
    if kind.status == UNAUTHORIZED and form is not Form.ENVOY:
        headers.append(CHALLENGE)
    return _refused(kind, verdict.message, verdict.param, headers, form)


def encode_edits(edits: tuple[Edit, ...]) -> str:
    """Edits as `offset:remove:hex;...`, which a script reads without a JSON parser."""
    return "".join(f"{edit.offset}:{edit.remove}:{edit.insert.encode().hex()};" for edit in edits)


def _allowed(allow: Allow) -> HttpAnswer:
    """Envoy makes metadata of these headers, under the names that the gRPC form gives it."""
    headers = [
        ("authorization", f"Bearer {allow.provider_key.reveal()}"),
        (REMOVE_HEADER, ",".join(REMOVED_HEADERS)),
        ("hold_id", allow.hold_id.hex),
        ("account_id", allow.account_id),
        ("credential_id", allow.credential_id),
        ("model", allow.model_id),
        ("endpoint", allow.endpoint),
        ("is_streaming", "true" if allow.is_streaming else "false"),
        *limit_headers(allow.limits),
    ]
    if allow.edits:
        headers.append(("edits", encode_edits(allow.edits)))
    return HttpAnswer(200, tuple(headers))


def _allowed_unmetered(allow: AllowUnmetered, form: Form) -> HttpAnswer:
    headers = [*identity_headers(allow), *limit_headers(allow.limits)]
    if form is Form.ENVOY:
        headers += [
            (REMOVE_HEADER, ",".join(REMOVED_CREDENTIALS)),
            ("account_id", allow.account_id),
            ("credential_id", allow.credential_id),
        ]
    return HttpAnswer(200, tuple(headers))


def _refused(
    kind: ErrorKind, message: str, param: str | None, headers: list[Header], form: Form
) -> HttpAnswer:
    body, status = error_body(kind, message, param), kind.status
    said = [("content-type", "application/json"), *headers]
    if form is Form.NGINX:
        said += [(STATUS_HEADER, str(status)), (ERROR_HEADER, body)]
        # Everything but 401, 403 and 5xx would be logged as a fault, and answered with 500.
        if status < _FIRST_SERVER_ERROR and status != UNAUTHORIZED:
            status = FORBIDDEN
    return HttpAnswer(status, tuple(said), body.encode())
