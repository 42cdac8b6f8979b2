"""A system that usage is sent to, with books of its own and faults on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

MOST_EVENTS = 100


@dataclass
class Receiver:
    """Takes events as Lago and as a CloudEvents sink; `taken` has each event once, in order.

    Events of Lago are the same if transaction id and timestamp are, CloudEvents if source and id
    are. `fault` is asked before each batch: a status is answered, and a negative one is answered
    after the batch was taken; 0 closes the connection.
    """

    fault: Callable[[], int | None] = lambda: None
    is_poison: Callable[[dict[str, Any]], bool] = lambda _: False
    taken: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    made: list[tuple[str, str]] = field(default_factory=list)
    credentials: set[str | None] = field(default_factory=set)
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def lago(self, request: web.Request) -> web.StreamResponse:
        """Answer Lago's POST /api/v1/events/batch: all of a batch or nothing."""
        body = await request.read()
        events = json.loads(body)["events"]
        return self._take(
            request, body, [((one["transaction_id"], one["timestamp"]), one) for one in events]
        )

    async def cloud_events(self, request: web.Request) -> web.StreamResponse:
        """Answer a POST of a batch of CloudEvents."""
        assert request.content_type == "application/cloudevents-batch+json"
        body = await request.read()
        events = json.loads(body)
        for one in events:
            assert one["specversion"] == "1.0"
            assert one["type"]
        return self._take(
            request, body, [((one["source"], one["id"]), one) for one in events], True
        )

    async def make(self, request: web.Request) -> web.Response:
        """Make a customer or a subscription, as often as asked."""
        ((what, members),) = (await request.json()).items()
        self.made.append((what, members["external_id"]))
        return web.json_response({what: members})

    async def metric(self, request: web.Request) -> web.Response:
        """Tell of a billable metric."""
        self.credentials.add(request.headers.get("authorization"))
        is_known = request.match_info["code"] == "llm_usage"
        return web.json_response({}, status=200 if is_known else 404)

    def _take(
        self,
        request: web.Request,
        body: bytes,
        events: list[tuple[tuple[str, str], dict[str, Any]]],
        ignores_duplicates: bool = False,
    ) -> web.StreamResponse:
        self.bodies.append(body)
        self.credentials.add(request.headers.get("authorization"))
        self.is_asked.set()
        assert 1 <= len(events) <= MOST_EVENTS
        fault = self.fault()
        if fault == 0:
            assert request.transport is not None
            request.transport.close()
        if fault is not None and fault >= 0:
            return web.Response(status=fault or 500, headers={"location": f"{self.url}/elsewhere"})
        if any(self.is_poison(one) for _, one in events):
            return web.json_response({"error": "no such subscription"}, status=422)
        if not ignores_duplicates:
            details = {
                str(place): {"transaction_id": ["value_already_exist"]}
                for place, (name, _) in enumerate(events)
                if name in self.taken
            }
            if details:
                return web.json_response({"error_details": details}, status=422)
        for name, one in events:
            self.taken.setdefault(name, one)
        return web.Response(status=-fault if fault else 200)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on this machine."""
    receiver = Receiver()
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/v1/events/batch", receiver.lago),
            web.post("/api/v1/customers", receiver.make),
            web.post("/api/v1/subscriptions", receiver.make),
            web.get("/api/v1/billable_metrics/{code}", receiver.metric),
            web.post("/events", receiver.cloud_events),
        ]
    )
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("")).rstrip("/")
        yield receiver
