"""A meter that sells credit through a simulator of Stripe, both in this process."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from meter.payments.payments import Payments
from meter.postgres.pool import PostgresPool
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api
from tests.selling import WEBHOOK, mode, signed
from tollkeeper.simulator.stripe.app import StripeSimulator, running
from tollkeeper.simulator.stripe.events import RecordedEvent
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings

VISA = "4242424242424242"
# By the movements in the simulator's books: what each does to credit.
SIGNS = {
    "paid": 1,
    "tax": -1,
    "refunded": -1,
    "refund_failed": 1,
    "dispute_withdrawn": -1,
    "dispute_reinstated": 1,
}


@dataclass
class Shop:
    """A meter that sells, and the simulator of Stripe that it sells through.

    Events reach the meter when a test delivers them, in the order that it wants.
    """

    api: MeterApi
    stripe: StripeSimulator
    client: httpx2.AsyncClient

    @property
    def meter(self) -> Payments:
        """The parts of the meter that sell."""
        return self.api.selling

    async def buy(self, user_id: str, amount: str, card: str = VISA, **body: Any) -> str:
        """Buy credit on the simulator's page; returns the Checkout session's id."""
        opened = await self.open(user_id, amount, **body)
        return await self.pay(opened["url"], card)

    async def open(self, user_id: str, amount: str, **body: Any) -> dict[str, str]:
        """Open a purchase as an administrator."""
        path = f"{ADMIN}/users/{user_id}/checkout"
        answer = await self.api.operator.post(path, json={"amount": amount, **body})
        assert answer.status_code == 201, answer.text
        opened: dict[str, str] = answer.json()
        return opened

    async def pay(self, url: str, card: str = VISA, **fields: str) -> str:
        """Send the form of the page; returns the session's id."""
        form = {"card_number": card, "name": "Ada", **fields}
        answer = await self.client.post(url, data=form)
        assert answer.status_code in (200, 303), answer.text
        return url.rsplit("/", 1)[1]

    def events(self, *types: str) -> list[RecordedEvent]:
        """All events so far, or those of some types, oldest first."""
        found = list(self.stripe.world.events._events)
        return [one for one in found if not types or one.type in types]

    async def deliver(self, *events: RecordedEvent) -> None:
        """Deliver events by the webhook, and let the worker follow what it can."""
        for one in events:
            body = json.dumps(one.to_json()).encode()
            answer = await self.api.anybody.post(WEBHOOK, content=body, headers=signed(body))
            assert answer.status_code == 200, answer.text
        await self.meter.worker.follow_all()

    async def balance(self, user_id: str) -> str:
        """The balance of a user, in dollars."""
        return (await self.api.credits(user_id))["balance"]

    async def payments(self, user_id: str) -> list[dict[str, Any]]:
        """The payments of a user, newest first."""
        answer = await self.api.operator.get(f"{ADMIN}/payments", params={"user_id": user_id})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]
        return rows

    async def state(self, user_id: str) -> list[tuple[str, str | None]]:
        """State and reason of each purchase of a user, newest first."""
        found = await self.meter.purchases.list_page(user_id, None, 50)
        return [(one.state.value, one.reason) for one in found]

    async def assert_equal_books(self) -> None:
        """Demand that credit by payments equals the simulator's books, and that ours verify."""
        customers = await self.api.pool.fetch(
            "SELECT account_id, customer_id FROM stripe_customers"
        )
        ours = await self.api.pool.fetch(
            "SELECT account_id, sum(amount_picos)::bigint AS picos FROM ("
            "SELECT account_id, credited_picos AS amount_picos FROM payments UNION ALL "
            "SELECT account_id, amount_picos FROM payment_reversals) moved GROUP BY account_id"
        )
        found = {row["account_id"]: row["picos"] for row in ours}
        theirs = self.stripe.books.sums()
        for row in customers:
            sums = theirs.get(row["customer_id"], {})
            cents = sum(SIGNS[name] * sums.get(name, 0) for name in SIGNS)
            assert found.get(row["account_id"], 0) == cents * 10**10, row["account_id"]
        verified = (await self.api.operator.get(f"{ADMIN}/ledger/verification")).json()
        assert verified["ok"], verified["failures"]


@asynccontextmanager
async def selling(pool: PostgresPool, **settings: Any) -> AsyncIterator[Shop]:
    """A meter on these books that sells through a simulator of Stripe of its own."""
    simulated = StripeSimulatorSettings(**{"settle_seconds": 0, **settings})
    await admit_operator(pool)
    async with (
        running(simulated) as simulator,
        httpx2.AsyncClient(follow_redirects=False) as client,
        meter_api(pool, sells=mode(simulator.url)) as api,
    ):
        yield Shop(api, simulator, client)
