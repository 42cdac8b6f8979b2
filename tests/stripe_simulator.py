"""The Stripe simulator with its only client, a receiver of webhooks and a browser, for tests.

Every answer and every webhook is held against Stripe's published specification. A difference
fails the test at its end.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import stripe
from aiohttp import web
from pydantic import SecretStr

from tests.patience import WAIT_S
from tests.stripe_openapi import (
    faults_of,
    schema_of_answer,
    schema_of_object,
    unknown_members,
    unknown_parameters,
)
from tollkeeper.simulator.stripe.app import StripeSimulator, running
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings
from tollkeeper.simulator.stripe.wire.form import parse_form

KEY: Final = "sk_test_simulator"
SECRET: Final = "whsec_of_the_tests"
VERSION: Final = "2026-10-28.endive"

Event = stripe.Event


@dataclass
class Receiver:
    """An endpoint of webhooks. `statuses` are answered first, one each; then 200."""

    differences: list[str]
    url: str = ""
    secret: str = SECRET
    events: list[Event] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        event = stripe.Webhook.construct_event(
            raw, request.headers["Stripe-Signature"], self.secret
        )
        judge_event(json.loads(raw), self.differences)
        async with self.arrived:
            self.events.append(event)
            self.arrived.notify_all()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    async def until(self, kind: str, times: int = 1) -> list[Event]:
        """Wait for events of a type, and return them."""
        async with asyncio.timeout(WAIT_S), self.arrived:
            await self.arrived.wait_for(lambda: self.types().count(kind) >= times)
        return [event for event in self.events if event.type == kind]


@dataclass
class Stripe:
    """A running simulator and all that talks to it."""

    simulator: StripeSimulator
    client: stripe.StripeClient
    browser: aiohttp.ClientSession
    receiver: Receiver

    @property
    def v1(self) -> Any:
        return self.client.v1

    @property
    def url(self) -> str:
        return self.simulator.url

    async def control(self, method: str, path: str, **body: Any) -> Any:
        """Call the control API; return its answer."""
        url = f"{self.url}/control/{path}"
        async with self.browser.request(method, url, json=body or None) as answer:
            text = await answer.text()
            assert answer.ok, text
            return json.loads(text) if text else None

    async def browse(self, url: str) -> tuple[str, str]:
        """Open a page; return where the browser ends, and the page."""
        async with self.browser.get(url) as answer:
            return str(answer.url), await answer.text()

    async def pay_page(self, url: str, **fields: str) -> tuple[str, str]:
        """Send the form of a hosted page; return where the browser ends, and the page."""
        async with self.browser.post(url, data=fields) as answer:
            return str(answer.url), await answer.text()


def judge_event(event: dict[str, Any], differences: list[str]) -> None:
    """Note what differs in an event, and in the object that it carries."""
    for row in (event, event["data"]["object"]):
        if found := faults_of(row, schema_of_object(row)):
            differences.append(f"event {event['type']}, {row['object']}: {found}")
        for name in unknown_members(row):
            differences.append(f"event {event['type']}, {row['object']}: unknown{name}")


def judge(differences: list[str]) -> Any:
    """Return a middleware that notes what differs from the specification."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        answer = await handler(request)
        resource = request.match_info.route.resource
        path = resource.canonical if resource else ""
        if not path.startswith("/v1/") or not isinstance(answer, web.Response):
            return answer
        body = json.loads(answer.body or b"null")  # type: ignore[arg-type]
        if body is None:
            return answer
        schema = schema_of_answer(request.method, path, answer.status)
        if found := faults_of(body, schema):
            differences.append(f"{request.method} {path} {answer.status}: {found}")
        for name in unknown_members(body):
            differences.append(f"{request.method} {path}: unknown{name}")
        if answer.status == 200:
            is_get = request.method in ("GET", "DELETE")
            given = parse_form(request.query_string if is_get else await request.text())
            for name in unknown_parameters(request.method, path, given):
                differences.append(f"{request.method} {path} took {name}")
        for event in body.get("data", []) if path == "/v1/events" else []:
            judge_event(event, differences)
        return answer

    return middleware


async def land(request: web.Request) -> web.Response:
    """Stand for the pages of the shop that a customer comes back to."""
    return web.Response(text=f"landed on {request.path_qs}")


@asynccontextmanager
async def stripe_running(**settings: Any) -> AsyncIterator[Stripe]:
    """Start the simulator, a receiver and a client; fail if an answer differed from Stripe's."""
    differences: list[str] = []
    receiver = Receiver(differences)
    shop = web.Application()
    shop.add_routes([web.post("/hook", receiver.receive), web.get("/{rest:.*}", land)])
    runner = web.AppRunner(shop)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    chosen = StripeSimulatorSettings(
        **{
            "secret_key": SecretStr(KEY),
            "webhook_url": f"{receiver.url}/hook",
            "webhook_secret": SecretStr(SECRET),
            "webhook_retry_seconds": (0.01, 0.01, 0.01),
            "settle_seconds": 0,
            "drain_seconds": 0,
            **settings,
        }
    )
    http = stripe.AIOHTTPClient()
    try:
        async with (
            running(chosen, middlewares=(judge(differences),)) as simulator,
            aiohttp.ClientSession() as browser,
        ):
            client = stripe.StripeClient(
                KEY,
                base_addresses={"api": simulator.url},
                http_client=http,
                stripe_version=VERSION,
                max_network_retries=2,
            )
            yield Stripe(simulator, client, browser, receiver)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]
        await runner.cleanup()
    assert not differences, "\n".join(differences)
