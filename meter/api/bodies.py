"""Request bodies: JSON only, up to a limit."""

from typing import TYPE_CHECKING, Final

from fastapi import Request
from starlette.exceptions import HTTPException

from meter.api.client_paths import is_of_clients
from meter.api.problems import ProblemError, render

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 1024 * 1024


class BodyGuard:
    """ASGI middleware that refuses bodies that no route could read."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = _find_refusal(request)
        if refusal is not None:
            await render(request, refusal)(scope, receive, send)
            return
        await self._app(scope, _counted(receive), send)


def _find_refusal(request: Request) -> ProblemError | None:
    length = request.headers.get("content-length", "0")
    has_body = length != "0" or "transfer-encoding" in request.headers
    if not has_body:
        return None
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        return ProblemError(413, "request_too_large", "the body is larger than 1 MiB")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # No route here reads a body of the clients of inference: the answer says what does.
    if media_type != "application/json" and not is_of_clients(request.url.path):
        return ProblemError(
            415, "unsupported_media_type", "send JSON with `Content-Type: application/json`"
        )
    return None


def _counted(receive: "Receive") -> "Receive":
    """Return a `receive` that enforces the limit: a chunked body does not state its length."""
    received_bytes = 0

    async def receive_counted() -> "Message":
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > MAX_BODY_BYTES:
            raise HTTPException(413)
        return message

    return receive_counted
