"""Writes decisions as HTTP responses, in the form that each kind of proxy understands."""

from dataclasses import dataclass, field
from typing import Final

from authz.decision import (
    Allow,
    AllowUnmetered,
    Decision,
    ErrorKind,
    ErrorShape,
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
    provider_headers,
    refusal_headers,
)
from authz.http_checks.targets import Form

# Envoy removes the headers that this header names from the request before it sends it on.
REMOVE_HEADER: Final = "x-envoy-auth-headers-to-remove"
# nginx forwards only 401 and 403. These headers carry the real status and body, which an nginx
# configuration can send to the client.
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


def to_answer(
    verdict: Decision | OutageKind, form: Form, shape: ErrorShape = ErrorShape.OPENAI
) -> HttpAnswer:
    """Return the HTTP response for a proxy of this kind, with an error in this shape."""
    if isinstance(verdict, Allow):
        return _allowed(verdict)
    if isinstance(verdict, AllowUnmetered):
        return _allowed_unmetered(verdict, form)
    if isinstance(verdict, NeedsWholeBody):
        return HttpAnswer(200, (("needs_whole_body", "true"),))
    if isinstance(verdict, OutageKind):
        retry = [("retry-after", str(RETRY_AFTER_OUTAGE_S))]
        return _refused(verdict.value, verdict.value.sentence, None, shape, retry, form)
    kind, headers = verdict.reason.value, refusal_headers(verdict)
    if kind.status == UNAUTHORIZED and form is not Form.ENVOY:
        headers.append(CHALLENGE)
    return _refused(kind, verdict.message, verdict.param, shape, headers, form)


def _allowed(allow: Allow) -> HttpAnswer:
    """Return the response to Envoy, which copies these headers into metadata of the same names."""
    headers = [
        *provider_headers(allow),
        (REMOVE_HEADER, ",".join(REMOVED_HEADERS)),
        ("hold_id", allow.hold_id.hex),
        ("account_id", allow.account_id),
        ("credential_id", allow.credential_id),
        ("model", allow.model_id),
        ("endpoint", allow.endpoint),
        ("is_streaming", "true" if allow.is_streaming else "false"),
        *limit_headers(allow.limits),
    ]
    if (upstream := allow.upstream) is not None:
        headers += [
            ("cluster", upstream.cluster),
            ("provider", upstream.provider),
            ("is_own_key", "true" if upstream.is_own_key else "false"),
        ]
        if upstream.fallbacks:
            headers.append(("fallbacks", upstream.fallback_names))
    if edits := allow.edits_text:
        headers.append(("edits", edits))
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
    kind: ErrorKind,
    message: str,
    param: str | None,
    shape: ErrorShape,
    headers: list[Header],
    form: Form,
) -> HttpAnswer:
    body, status = error_body(kind, message, param, shape), kind.status
    said = [("content-type", "application/json"), *headers]
    if form is Form.NGINX:
        said += [(STATUS_HEADER, str(status)), (ERROR_HEADER, body)]
        # nginx logs any status but 401, 403 and 5xx as an error, and answers with 500.
        if status < _FIRST_SERVER_ERROR and status != UNAUTHORIZED:
            status = FORBIDDEN
    return HttpAnswer(status, tuple(said), body.encode())
