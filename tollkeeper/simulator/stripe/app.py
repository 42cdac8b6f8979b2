"""Puts the Stripe simulator together, and starts and stops it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from tollkeeper.simulator.stripe.billing.invoice_items import InvoiceItems
from tollkeeper.simulator.stripe.billing.invoices import Invoices
from tollkeeper.simulator.stripe.billing.portal import Portal
from tollkeeper.simulator.stripe.billing.subscriptions import Subscriptions
from tollkeeper.simulator.stripe.billing.test_clocks import TestClocks
from tollkeeper.simulator.stripe.books import Books
from tollkeeper.simulator.stripe.control import StripeControl
from tollkeeper.simulator.stripe.events import EventLog
from tollkeeper.simulator.stripe.faults import Faults
from tollkeeper.simulator.stripe.pages import CheckoutPages
from tollkeeper.simulator.stripe.payments.balance import Balance
from tollkeeper.simulator.stripe.payments.charges import Charges
from tollkeeper.simulator.stripe.payments.customers import Customers
from tollkeeper.simulator.stripe.payments.disputes import Disputes
from tollkeeper.simulator.stripe.payments.payment_intents import PaymentIntents
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.payments.refunds import Refunds
from tollkeeper.simulator.stripe.payments.setup_intents import SetupIntents
from tollkeeper.simulator.stripe.selling.checkout import CheckoutSessions
from tollkeeper.simulator.stripe.selling.coupons import Coupons
from tollkeeper.simulator.stripe.selling.line_items import LineReader
from tollkeeper.simulator.stripe.selling.prices import SalePrices
from tollkeeper.simulator.stripe.selling.products import Products
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings
from tollkeeper.simulator.stripe.webhooks import Deliveries, WebhookEndpoints
from tollkeeper.simulator.stripe.wire.handling import ApiHandling
from tollkeeper.simulator.stripe.wire.problem import Json
from tollkeeper.simulator.stripe.world import Call, Operation, World, make_world

REQUEST_MAX_BYTES = 1024 * 1024
ACCEPT_BACKLOG = 1_024


@dataclass(frozen=True, slots=True)
class StripeSimulator:
    """A running simulator. `url` goes to `StripeClient(base_addresses={"api": url})`."""

    url: str
    world: World
    faults: Faults
    deliveries: Deliveries

    @property
    def books(self) -> Books:
        return self.world.books


def build_app(
    settings: StripeSimulatorSettings,
    *,
    seed: int = 0,
    clock: Callable[[], float] = time.time,
    middlewares: tuple[Middleware, ...] = (),
) -> tuple[web.Application, World, Faults, Deliveries]:
    """Return the application and what it stands on. The caller sets `world.base_url`."""
    world = make_world(settings, clock)
    faults = Faults(seed)
    methods = PaymentMethods(world)
    customers = Customers(world, methods)
    balance = Balance(world)
    charges = Charges(world, balance, methods)
    disputes = Disputes(world, balance)
    intents = PaymentIntents(world, methods, charges, disputes)
    refunds = Refunds(world, balance, methods)
    products = Products(world)
    prices = SalePrices(world, products)
    coupons = Coupons(world)
    lines = LineReader(world, products, prices)
    setups = SetupIntents(world, methods)
    invoices = Invoices(world, methods, intents, coupons)
    items = InvoiceItems(world)
    subscriptions = Subscriptions(world, methods, coupons, invoices, items)
    sessions = CheckoutSessions(
        world, customers, methods, intents, coupons, lines, invoices, subscriptions
    )
    portal = Portal(world, methods, subscriptions, invoices)
    endpoints = WebhookEndpoints(world)
    deliveries = Deliveries(world, endpoints, faults, clock)
    if settings.webhook_url and settings.webhook_secret:
        endpoints.make(settings.webhook_url, ["*"], settings.webhook_secret.get_secret_value())
    families = (
        *(customers, methods, intents, charges, refunds, disputes, balance),
        *(products, prices, coupons, sessions, endpoints, setups),
        *(invoices, items, subscriptions, portal, TestClocks(world)),
    )
    operations = [one for family in families for one in family.operations()]
    handling = ApiHandling(world, faults)
    app = web.Application(client_max_size=REQUEST_MAX_BYTES, middlewares=middlewares)
    app.add_routes(
        web.route(one.method, one.path, handling.handler(one))
        for one in [*operations, *_event_operations(world.events)]
    )
    app.add_routes(CheckoutPages(world, sessions, intents, setups).routes())
    app.add_routes(portal.routes())
    app.add_routes(StripeControl(world, faults, deliveries, disputes).routes())
    # Last: the router takes the first route that matches.
    app.add_routes([web.route("*", "/{rest:.*}", handling.unknown)])
    return app, world, faults, deliveries


def _event_operations(events: EventLog) -> list[Operation]:
    def page(call: Call) -> Json:
        return events.page(call.parameters, call.url)

    def retrieve(call: Call) -> Json:
        call.parameters.finish()
        return events.get(call.path["id"]).to_json()

    return [
        Operation("GET", "/v1/events", page),
        Operation("GET", "/v1/events/{id}", retrieve),
    ]


@contextlib.asynccontextmanager
async def running(
    settings: StripeSimulatorSettings,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    seed: int = 0,
    clock: Callable[[], float] = time.time,
    middlewares: tuple[Middleware, ...] = (),
) -> AsyncIterator[StripeSimulator]:
    """Serve while the context is open. Port 0 takes a free port; `clock` gives seconds in UTC."""
    app, world, faults, deliveries = build_app(
        settings, seed=seed, clock=clock, middlewares=middlewares
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=settings.drain_seconds)
    await runner.setup()
    tasks: list[asyncio.Task[None]] = []
    try:
        site = web.TCPSite(runner, host, port, backlog=ACCEPT_BACKLOG)
        await site.start()
        world.base_url = settings.public_url or f"http://{host}:{runner.addresses[0][1]}"
        tasks = [asyncio.create_task(deliveries.run()), asyncio.create_task(_keep_time(world))]
        yield StripeSimulator(world.base_url, world, faults, deliveries)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()


async def _keep_time(world: World) -> None:
    """Run what falls due on the machine's clock, until cancelled."""
    changed = asyncio.Event()
    world.wall.on_earlier = changed.set
    while True:
        changed.clear()
        world.wall.catch_up()
        due = world.wall.next_due()
        wait = None if due is None else max(0, due - world.wall.now())
        try:
            await asyncio.wait_for(changed.wait(), wait)
        except TimeoutError:
            continue
