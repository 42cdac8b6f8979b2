"""Webhook endpoints, and the delivery of events to them: signed, retried, at least once."""

import asyncio
import hashlib
import heapq
import hmac
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import structlog

from tollkeeper.simulator.stripe.events import RecordedEvent
from tollkeeper.simulator.stripe.faults import REORDER_SECONDS, Faults, Trouble
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter
from tollkeeper.simulator.stripe.world import Call, Operation, World

SENDS_AT_ONCE = 16
WAITING_MAX = 2_000_000

log = structlog.get_logger()


def sign(payload: bytes, secret: str, at: int) -> str:
    """Return the value of `Stripe-Signature` for a payload sent at a second."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256)
    return f"t={at},v1={digest.hexdigest()}"


class WebhookEndpoints:
    """Makes, changes and lists endpoints. The secret shows in the answer to `create` only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = world.store.collection("webhook_endpoint")
        self._secrets: dict[str, str] = {}

    def operations(self) -> list[Operation]:
        one = "/v1/webhook_endpoints/{webhook_endpoint}"
        return [
            Operation("POST", "/v1/webhook_endpoints", self.create),
            Operation("GET", "/v1/webhook_endpoints", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("POST", one, self.update),
            Operation("DELETE", one, self.delete),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        url, kinds = given.required("url"), given.texts("enabled_events")
        description, version = given.text("description"), given.text("api_version")
        metadata = given.metadata()
        given.finish()
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise bad_parameter("Invalid URL: An explicit scheme must be provided.", "url")
        if not kinds:
            raise given.absent("enabled_events")
        secret = new_id("whsec", 32)
        endpoint = self.make(url, kinds, secret)
        endpoint.update(description=description, api_version=version, metadata=metadata)
        return {**endpoint, "secret": secret}

    def make(self, url: str, kinds: list[str], secret: str) -> Json:
        """Add an endpoint that gets events of these types; `*` gets all."""
        endpoint: Json = {
            "id": new_id("we"),
            "object": "webhook_endpoint",
            "api_version": None,
            "application": None,
            "created": self._world.wall.now(),
            "description": None,
            "enabled_events": kinds,
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
        }
        self._secrets[endpoint["id"]] = secret
        return self._world.store.add(endpoint)

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("webhook_endpoint", call.path["webhook_endpoint"])

    def update(self, call: Call) -> Json:
        endpoint = self._world.store.get("webhook_endpoint", call.path["webhook_endpoint"])
        given = call.parameters
        changed: Json = {"metadata": given.metadata(endpoint["metadata"])}
        changed["url"] = given.text("url", endpoint["url"])
        if given.has("description"):
            changed["description"] = given.text("description")
        if given.has("enabled_events"):
            changed["enabled_events"] = given.texts("enabled_events")
        if given.has("disabled"):
            changed["status"] = "disabled" if given.flag("disabled") else "enabled"
        given.finish()
        endpoint.update(changed)
        return endpoint

    def delete(self, call: Call) -> Json:
        endpoint = self._world.store.get("webhook_endpoint", call.path["webhook_endpoint"])
        call.parameters.finish()
        self._world.store.remove(endpoint)
        return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}

    def browse(self, call: Call) -> Json:
        return self._all.page(call.parameters, call.url, by_created(call.parameters))

    def of(self, event_type: str) -> list[Json]:
        """Return the endpoints that an event of this type goes to."""
        return [
            endpoint
            for endpoint in self._all
            if endpoint["status"] == "enabled"
            and ("*" in endpoint["enabled_events"] or event_type in endpoint["enabled_events"])
        ]

    def secret_of(self, endpoint: Json) -> str:
        return self._secrets[endpoint["id"]]


@dataclass(slots=True)
class Delivery:
    """An event on its way to an endpoint. A `is_copy` is a repetition that counts for nothing."""

    event: RecordedEvent
    endpoint: Json
    is_copy: bool = False
    failures: int = 0


class Deliveries:
    """Sends events; what fails is tried again at growing distances, until Stripe would give up."""

    def __init__(
        self,
        world: World,
        endpoints: WebhookEndpoints,
        faults: Faults,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._world = world
        self._endpoints = endpoints
        self._faults = faults
        self._clock = clock
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._held: list[Delivery] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._sends: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        world.events.on_event = self.send_out

    def __len__(self) -> int:
        """Count the deliveries that wait or are under way."""
        return len(self._waiting) + len(self._held) + len(self._sends)

    def send_out(self, event: RecordedEvent) -> None:
        """Begin the deliveries of a new event, with the faults that strike them."""
        for endpoint in self._endpoints.of(event.type):
            event.pending_webhooks += 1
            delivery = Delivery(event, endpoint)
            fault = self._faults.of_delivery(event.type)
            trouble = fault.trouble if fault else None
            if len(self._waiting) >= WAITING_MAX:
                log.error("stripe_webhook_dropped", event_id=event.id, waiting_max=WAITING_MAX)
                continue
            if trouble == Trouble.LOSE:
                # It stays pending for ever, as after an outage longer than all retries.
                continue
            if trouble == Trouble.REORDER:
                self._held.append(delivery)
                self._quiet.clear()
                asyncio.get_running_loop().call_later(REORDER_SECONDS, self._release_held)
                continue
            if trouble == Trouble.DUPLICATE:
                self._put(Delivery(event, endpoint, is_copy=True), 0)
            self._put(delivery, fault.delay_ms / 1_000 if fault else 0)

    def resend(self, event: RecordedEvent) -> int:
        """Deliver an event again to every endpoint, as the dashboard's button does."""
        endpoints = self._endpoints.of(event.type)
        for endpoint in endpoints:
            self._put(Delivery(event, endpoint, is_copy=event.pending_webhooks == 0), 0)
        return len(endpoints)

    async def until_quiet(self) -> None:
        """Wait until no delivery waits or is under way; retries count."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Send until cancelled; sends that are under way are cancelled too."""
        timeout = aiohttp.ClientTimeout(total=self._world.settings.webhook_timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while True:
                    self._changed.clear()
                    self._start_due(session)
                    wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                    if wait is None or len(self._sends) >= SENDS_AT_ONCE:
                        await self._changed.wait()
                    else:
                        with_timeout = asyncio.wait_for(self._changed.wait(), max(0.0, wait))
                        try:
                            await with_timeout
                        except TimeoutError:
                            continue
            finally:
                for send in self._sends:
                    send.cancel()
                await asyncio.gather(*self._sends, return_exceptions=True)

    def _start_due(self, session: aiohttp.ClientSession) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now and len(self._sends) < SENDS_AT_ONCE:
            _, _, delivery = heapq.heappop(self._waiting)
            send = asyncio.create_task(self._send(session, delivery))
            self._sends.add(send)
            send.add_done_callback(self._sent)

    def _sent(self, send: asyncio.Task[None]) -> None:
        self._sends.discard(send)
        if not len(self):
            self._quiet.set()
        self._changed.set()

    async def _send(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        event, endpoint = delivery.event, delivery.endpoint
        if self._world.store.find(endpoint["id"]) is None:
            return
        payload = event.to_body()
        # Receivers compare with their own clock, so the skipped time does not count here.
        at = int(self._clock())
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": sign(payload, self._endpoints.secret_of(endpoint), at),
        }
        try:
            async with session.post(
                endpoint["url"], data=payload, headers=headers, allow_redirects=False
            ) as answer:
                is_taken = 200 <= answer.status < 300
                outcome = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            is_taken, outcome = False, type(error).__name__
        self._release_held()
        if is_taken:
            if not delivery.is_copy:
                event.pending_webhooks -= 1
            return
        delays = self._world.settings.webhook_retry_seconds
        delivery.failures += 1
        if delivery.is_copy or delivery.failures > len(delays):
            log.warning("stripe_webhook_given_up", event_id=event.id, type=event.type, last=outcome)
            return
        self._put(delivery, delays[delivery.failures - 1])

    def _release_held(self) -> None:
        """Send what was held back: another event went first, or none came for a while."""
        held, self._held = self._held, []
        for delivery in held:
            self._put(delivery, 0)

    def _put(self, delivery: Delivery, seconds: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), delivery))
        self._quiet.clear()
        self._changed.set()
