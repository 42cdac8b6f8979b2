"""A customer's server that takes messages and verifies them as Standard Webhooks has it."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.tls import Authority

TOLERANCE_S = 300


@dataclass
class WebhookReceiver:
    """Takes messages, each id once. `fault` is asked before each: a status is answered.

    A message that cannot be verified is answered 401, and is not among the taken ones.
    """

    secrets: dict[str, str] = field(default_factory=dict)
    fault: Callable[[], int | None] = lambda: None
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    refused: int = 0
    paths: list[str] = field(default_factory=list)
    hangs: asyncio.Event | None = None
    url: str = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Verify a message by the published rules, and take it."""
        body = await request.read()
        self.paths.append(request.path)
        if self.hangs is not None:
            await self.hangs.wait()
        message_id = request.headers["webhook-id"]
        self.bodies.append((message_id, body))
        if not self._is_signed(request, body):
            self.refused += 1
            return web.Response(status=401)
        status = self.fault()
        if status is not None:
            return web.Response(status=status, headers={"location": f"{self.url}/elsewhere"})
        self.taken.setdefault(message_id, json.loads(body))
        return web.Response(status=204)

    def _is_signed(self, request: web.Request, body: bytes) -> bool:
        secret = self.secrets[request.path].removeprefix("whsec_")
        sent_at = request.headers["webhook-timestamp"]
        if abs(time.time() - int(sent_at)) > TOLERANCE_S:
            return False
        signed = request.headers["webhook-id"].encode() + b"." + sent_at.encode() + b"." + body
        wanted = hmac.new(base64.b64decode(secret), signed, hashlib.sha256).digest()
        given = [
            one.removeprefix("v1,")
            for one in request.headers["webhook-signature"].split(" ")
            if one.startswith("v1,")
        ]
        return any(hmac.compare_digest(base64.b64decode(one), wanted) for one in given)

    def types(self) -> list[str]:
        """The types of the taken messages, in the order in which they came."""
        return [one["type"] for one in self.taken.values()]


@asynccontextmanager
async def receiving_webhooks(authority: Authority) -> AsyncIterator[WebhookReceiver]:
    """A receiver on this machine, by https."""
    receiver = WebhookReceiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    server = TestServer(app)
    await server.start_server(ssl=authority.server_context)
    try:
        receiver.url = str(server.make_url("")).rstrip("/")
        yield receiver
    finally:
        await server.close()
