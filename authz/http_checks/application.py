"""The ASGI application: reads one request of a proxy, has it decided, and answers."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from authz.decision import Decision, OutageKind
from authz.endpoints.table import error_shape
from authz.http_checks.answers import to_answer
from authz.http_checks.targets import Form, Target, read_target
from authz.request import HEADERS_USED, AuthRequest
from authz.service import CheckService
from meter.errors import Outage

# A client of a Unix socket is on this machine.
LOCAL_PEER: Final = "127.0.0.1"
# The request target unchanged: `raw_path` and `query_string` lose a question mark at the end.
TARGET: Final = "tollkeeper.target"
BODY_TIMEOUT_S: Final = 30.0
ROOM_BYTES: Final = 512 * 2**20
# The headers in which a proxy that sends no body states the method and URI of its client.
_ORIGINALS: Final = {
    Form.NGINX: ("x-original-method", "x-original-uri"),
    Form.FORWARD: ("x-forwarded-method", "x-forwarded-uri"),
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientLeft(Exception):
    """Raised when the proxy has closed its connection, so that no one waits for the answer."""


class NoRoom(Outage):
    """Raised when buffered bodies leave no room for another."""


class HttpForm:
    """Answers checks that arrive as HTTP requests, with the decisions of a CheckService.

    `room_bytes` bounds all bodies that arrive or are being decided about.
    """

    def __init__(
        self, service: CheckService, max_body_bytes: int, room_bytes: int = ROOM_BYTES
    ) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._room_bytes = room_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is served here")
        target = read_target(scope["extensions"][TARGET]["raw"].decode("latin-1"))
        body = bytearray()
        try:
            verdict = await self._verdict(scope, target, body, receive)
        except ClientLeft:
            return
        finally:
            self._room_bytes += len(body)
        # No await stands between the check that the proxy is still connected and the response.
        answer = to_answer(verdict, target.form, error_shape(target.path))
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})

    async def _verdict(
        self, scope: Message, target: Target, body: bytearray, receive: Receive
    ) -> Decision | OutageKind:
        """Read the body and return the decision. Raises ClientLeft."""
        if target.form is Form.ENVOY:
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    await self._read_into(body, receive)
            except (NoRoom, TimeoutError) as error:
                return self._service.turn_away(error)
        return await self._decide(to_request(scope, target, bytes(body)), receive)

    async def _read_into(self, body: bytearray, receive: Receive) -> None:
        """Read the body, up to one byte more than allowed. Raises ClientLeft, NoRoom."""
        has_more = True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            has_more = message.get("more_body", False)
            piece = message.get("body", b"")[: self._max_body_bytes + 1 - len(body)]
            if len(piece) > self._room_bytes:
                raise NoRoom("too many large bodies at once")
            self._room_bytes -= len(piece)
            body += piece

    async def _decide(self, request: AuthRequest, receive: Receive) -> Decision | OutageKind:
        """Decide; raises ClientLeft, and leaves no hold, when the proxy disconnects."""
        deciding = asyncio.ensure_future(self._service.decide(request))
        leaving = asyncio.ensure_future(_wait_for_leaving(receive))
        try:
            await asyncio.wait({deciding, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # The event loop reports a closed connection one iteration later.
            await asyncio.sleep(0)
            if leaving.done():
                self._take_back(deciding)
                raise ClientLeft
            return deciding.result()
        finally:
            leaving.cancel()
            # A decision that is cancelled while it places a hold releases that hold itself.
            deciding.cancel()

    def _take_back(self, deciding: "asyncio.Future[Decision | OutageKind]") -> None:
        if not deciding.done() or deciding.cancelled() or deciding.exception() is not None:
            return
        verdict = deciding.result()
        undo = None if isinstance(verdict, OutageKind) else self._service.undoing(verdict)
        if undo is not None:
            undo()


def to_request(scope: Message, target: Target, body: bytes) -> AuthRequest:
    """Return the request of the proxy's client, as the proxy describes it."""
    every = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
    method, path = scope["method"], target.path
    if target.form is not Form.ENVOY:
        named = dict(every)
        method, path = (named.get(name, "") for name in _ORIGINALS[target.form])
    return AuthRequest(
        method,
        path,
        # The length is that of the check, which may have only a part of the body.
        tuple(p for p in every if p[0] in HEADERS_USED and p[0] != "content-length"),
        body,
        scope["client"][0] if scope["client"] else LOCAL_PEER,
        extensions=target.extensions,
        shows_body=target.form is Form.ENVOY,
    )


async def _wait_for_leaving(receive: Receive) -> None:
    """Wait for the end of the connection; ignore the body that a proxy may send unasked."""
    while (await receive())["type"] != "http.disconnect":
        pass
