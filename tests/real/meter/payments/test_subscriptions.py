"""Plans sold through the simulator of Stripe, with Stripe's own library and test clocks."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from meter.exports import export_store
from meter.payments.nightly.comparison_store import ComparisonStore
from meter.payments.nightly.run import NightlyComparison
from tests.books import Books
from tests.meter_api import ADMIN
from tests.patience import WAIT_S
from tests.shop import Shop, selling
from tollkeeper.simulator.stripe.events import RecordedEvent
from tollkeeper.simulator.stripe.faults import Fault, Trouble

DAY = timedelta(days=1)
JANUARY = datetime(2032, 1, 10, 12, tzinfo=UTC)
OWN = "/api/v1/billing/subscription"
DISPUTED = "4000000000000259"


class Subscriber:
    """A user whose customer at Stripe lives on a test clock."""

    def __init__(self, shop: Shop, key: str, clock_id: str) -> None:
        self.shop = shop
        self.key = key
        self._clock_id = clock_id

    @classmethod
    async def open(cls, shop: Shop) -> "Subscriber":
        """Make the user Ada, and the prices of the plans."""
        await shop.api.user("ada")
        key = (await shop.api.key("ada", scopes=["usage:read", "billing:write"]))["key"]
        v1 = shop.meter.gateway.client.v1
        clocks = v1.test_helpers.test_clocks
        clock = await clocks.create_async({"frozen_time": int(JANUARY.timestamp())})
        customer = await v1.customers.create_async(
            {"email": "ada@example.com", "test_clock": clock.id}
        )
        await shop.meter.purchases.save_customer("ada", False, customer.id, None)
        await sync(shop)
        return cls(shop, key, clock.id)

    async def ask(self, path: str = "", method: str = "GET", **body: Any) -> dict[str, Any]:
        """Ask about the subscription, as the user."""
        answer = await self.shop.api.as_key(self.key, f"{OWN}{path}", method, body or None)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def subscribe(self, plan: str) -> str:
        """Subscribe on the page; returns the session's id."""
        return await self.shop.pay((await self.ask("", "POST", plan=plan))["url"])

    async def advance(self, until: datetime) -> None:
        """Move the clock of Stripe on, and wait until all that follows has happened."""
        clocks = self.shop.meter.gateway.client.v1.test_helpers.test_clocks
        await clocks.advance_async(self._clock_id, {"frozen_time": int(until.timestamp())})
        async with asyncio.timeout(WAIT_S):
            while (await clocks.retrieve_async(self._clock_id)).status != "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def told(self) -> tuple[str, str, int | None]:
        """Deliver all events; return balance, plan and requests a month."""
        await self.shop.deliver(*self.shop.events())
        return await self.standing()

    async def standing(self) -> tuple[str, str, int | None]:
        """Return the balance, the plan, and the requests a month that it allows."""
        row = await self.shop.api.pool.fetchrow(
            "SELECT plan_id, requests_per_month FROM account_plans WHERE account_id = 'ada'"
        )
        assert row is not None
        return await self.shop.balance("ada"), row["plan_id"], row["requests_per_month"]


async def sync(shop: Shop, **body: Any) -> dict[str, list[str]]:
    answer = await shop.api.operator.post(f"{ADMIN}/plans/sync", json=body)
    assert answer.status_code == 200, answer.text
    return {one["plan"]: one["differences"] for one in answer.json()["data"]}


@pytest_asyncio.fixture
async def shop(books: Books) -> AsyncIterator[Shop]:
    async with selling(books.pool) as opened:
        yield opened


@pytest_asyncio.fixture
async def ada(shop: Shop) -> Subscriber:
    return await Subscriber.open(shop)


async def test_sync_makes_prices_once_and_says_what_differs(shop: Shop) -> None:
    missing = ["the product is missing", "the price is missing"]
    plans = ("trial", "starter", "professional", "enterprise")
    assert await sync(shop, may_change=False) == dict.fromkeys(plans, missing)
    assert await sync(shop) == dict.fromkeys(plans, missing)
    assert await sync(shop) == {plan: [] for plan in plans}
    price = {"amount": "29.00", "period": "month", "included_credit": "30.00"}
    changes = {"name": "Beginner", "price": price}
    await shop.api.operator.patch(f"{ADMIN}/plans/starter", json=changes)
    found = await sync(shop)
    assert found["starter"] == ["the product is 'Starter'", "the price is missing"]
    assert found["trial"] == (await sync(shop))["starter"] == []


async def test_a_subscription_from_its_first_period_to_its_end(ada: Subscriber) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    assert await ada.told() == ("20.00", "starter", 1_000)
    found = await ada.ask()
    assert (found["status"], found["plan"], found["is_applied"]) == ("active", "starter", True)
    assert found["paid_until"] == "2032-02-10T12:00:00Z"
    (paid,) = await shop.payments("ada")
    assert (paid["paid"], paid["credited"]) == ("19.00", "20.00")

    # Terms that change apply to the next period; its credit adds to what is left.
    await shop.api.operator.patch(f"{ADMIN}/plans/starter", json={"requests_per_month": 1_500})
    assert await ada.standing() == ("20.00", "starter", 1_000)
    await ada.advance(JANUARY + 32 * DAY)
    assert await ada.told() == ("40.00", "starter", 1_500)

    assert (await ada.ask("/cancel", "POST"))["cancels_at"] == "2032-03-10T12:00:00Z"
    assert (await ada.ask("/resume", "POST"))["cancels_at"] is None
    await ada.ask("/cancel", "POST")
    assert await ada.told() == ("40.00", "starter", 1_500)
    await ada.advance(JANUARY + 62 * DAY)
    assert await ada.told() == ("40.00", "standard", None)
    answer = await shop.api.operator.get(f"{ADMIN}/subscriptions")
    (ended,) = answer.json()["data"]
    assert (ended["status"], ended["is_applied"]) == ("canceled", False)
    verified = (await shop.api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert verified["ok"], verified["failures"]


async def test_paid_invoices_are_in_a_file(
    ada: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_store, "PAGE_ROWS", 1)
    await ada.subscribe("starter")
    await ada.advance(JANUARY + 32 * DAY)
    await ada.told()
    period = "from=2032-01-01&to=2032-12-31&format=jsonl"
    for path in ("/api/v1/exports/invoices", f"{ADMIN}/exports/invoices"):
        ask = ada.shop.api.operator if path.startswith(ADMIN) else ada.shop.api.anybody
        headers = {} if path.startswith(ADMIN) else {"x-api-key": ada.key}
        answer = await ask.get(f"{path}?{period}", headers=headers)
        *invoices, end = [json.loads(line) for line in answer.text.splitlines()]
        assert end == {"end": {"rows": 2, "next_cursor": None}}
        assert [one["period_end"] for one in invoices] == [
            "2032-02-10T12:00:00Z",
            "2032-03-10T12:00:00Z",
        ]
        for one in invoices:
            assert (one["user_id"], one["plan"]) == ("ada", "starter")
            assert (one["paid"], one["credited"]) == ("19.00", "20.00")


@pytest.mark.parametrize("seed", range(3))
async def test_order_repetition_and_loss_do_not_matter(ada: Subscriber, seed: int) -> None:
    chance, shop = random.Random(seed), ada.shop
    await ada.subscribe("starter")
    await ada.advance(JANUARY + 32 * DAY)
    events = 2 * shop.events("invoice.paid", "checkout.session.completed")
    events += shop.events("customer.subscription.created", "customer.subscription.updated")
    chance.shuffle(events)
    await shop.deliver(*events[: chance.randrange(len(events))])
    # What no webhook brought is found by the sweep.
    await shop.meter.sweep.sweep()
    await shop.meter.worker.follow_all()
    assert await ada.standing() == ("40.00", "starter", 1_000)


async def test_many_at_once_give_the_credit_once(ada: Subscriber) -> None:
    shop = ada.shop
    session = await ada.subscribe("professional")
    (paid,) = shop.events("invoice.paid")
    (made,) = shop.events("customer.subscription.created")
    follow = shop.meter.fulfilment
    await asyncio.gather(
        *[follow.follow_session(session) for _ in range(4)],
        *[follow.follow_invoice(object_id(paid)) for _ in range(4)],
        *[follow.follow_subscription(object_id(made)) for _ in range(4)],
    )
    assert await ada.standing() == ("60.00", "professional", 10_000)


async def test_a_change_to_a_dearer_plan_is_paid_now_and_to_a_cheaper_one_next(
    ada: Subscriber,
) -> None:
    await ada.subscribe("starter")
    await ada.told()
    await ada.advance(JANUARY + 15 * DAY)
    await ada.ask("", "PUT", plan="professional")
    balance, plan, requests = await ada.told()
    assert (plan, requests) == ("professional", 10_000)
    # Half a period of 60 less what is unused of 20, in proportion to the cents that were charged.
    assert 38 < float(balance) < 42
    await ada.ask("", "PUT", plan="starter")
    assert await ada.told() == (balance, "professional", 10_000)
    await ada.advance(JANUARY + 32 * DAY)
    renewed, plan, requests = await ada.told()
    assert (plan, requests) == ("starter", 1_000)
    assert float(renewed) == pytest.approx(float(balance) + 20)


async def test_a_trial_gives_its_own_credit_and_only_once(ada: Subscriber) -> None:
    shop = ada.shop
    price = {"amount": "19.00", "period": "month", "included_credit": "20.00"}
    trial = {"days": 7, "credit": "2.00"}
    await shop.api.operator.patch(
        f"{ADMIN}/plans/starter", json={"price": {**price, "trial": trial}}
    )
    await ada.subscribe("starter")
    assert await ada.told() == ("2.00", "starter", 1_000)
    await ada.advance(JANUARY + 8 * DAY)
    assert await ada.told() == ("22.00", "starter", 1_000)
    refused = await shop.api.operator.post(
        f"{ADMIN}/users/ada/subscription", json={"plan": "starter"}
    )
    assert refused.status_code == 409, refused.text


async def test_an_unknown_price_grants_nothing_and_is_parked(ada: Subscriber) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    (paid,) = shop.events("invoice.paid")
    found = shop.meter.subscriptions._store
    known, found.find_version = found.find_version, nothing  # type: ignore[method-assign]
    with pytest.raises(Exception, match="no price of a plan"):
        await shop.meter.fulfilment.follow_invoice(object_id(paid))
    assert await ada.standing() == ("0.00", "standard", None)
    found.find_version = known  # type: ignore[method-assign]
    await shop.meter.fulfilment.follow_invoice(object_id(paid))
    assert await ada.standing() == ("20.00", "starter", 1_000)


def object_id(event: RecordedEvent) -> str:
    return str(event.to_json()["data"]["object"]["id"])


async def nothing(price_id: str, is_live: bool) -> None:
    """Know no price."""


async def test_terms_end_when_nobody_pays_and_return_when_somebody_does(ada: Subscriber) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    await ada.told()
    follower = shop.meter.subscriptions
    ended = datetime(2032, 2, 10, 12, tzinfo=UTC)
    assert await follower.follow_overdue(ended + 6 * DAY) == 0
    assert await follower.follow_overdue(ended + 8 * DAY) == 1
    assert await ada.standing() == ("20.00", "standard", None)
    await ada.advance(JANUARY + 32 * DAY)
    assert await ada.told() == ("40.00", "starter", 1_000)


async def test_a_refund_takes_the_credit_of_the_period_back(ada: Subscriber) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    await ada.told()
    (paid,) = await shop.payments("ada")
    path, key = f"{ADMIN}/payments/{paid['id']}/refunds", {"Idempotency-Key": "one"}
    answer = await shop.api.operator.post(path, json={}, headers=key)
    assert answer.status_code < 300, answer.text
    assert await shop.balance("ada") == "0.00"


async def test_a_lost_dispute_takes_the_credit_of_the_period_and_a_won_one_gives_it_back(
    ada: Subscriber,
) -> None:
    shop = ada.shop
    await shop.pay((await ada.ask("", "POST", plan="starter"))["url"], DISPUTED)
    # The dispute may be told before the invoice whose payment it takes back.
    await shop.deliver(*shop.events()[::-1])
    assert await ada.told() == ("0.00", "starter", 1_000)
    (paid,) = await shop.payments("ada")
    assert (paid["paid"], paid["credited"], paid["reversed"]) == ("19.00", "20.00", "20.00")
    v1: Any = shop.meter.gateway.client.v1
    (dispute,) = (await v1.disputes.list_async({"payment_intent": paid["id"]})).data
    evidence = {"uncategorized_text": "winning_evidence"}
    await v1.disputes.update_async(dispute.id, {"evidence": evidence, "submit": True})
    shop.stripe.world.wall.catch_up()
    assert await ada.told() == ("20.00", "starter", 1_000)
    verified = (await shop.api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert verified["ok"], verified["failures"]


async def test_a_refund_that_came_before_its_invoice_is_followed_after_an_outage(
    ada: Subscriber,
) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    paid = shop.stripe.world.books.rows(0, 1)[0]["payment_intent"]
    v1: Any = shop.meter.gateway.client.v1
    await v1.refunds.create_async({"payment_intent": paid})
    # Nobody knows yet that the payment is ours.
    await shop.deliver(*shop.events("refund.created", "charge.refunded"))
    # The invoice is recorded, and then Stripe does not answer.
    fault = Fault(trouble=Trouble.ERROR, match="GET /v1/refunds", times=None)
    shop.stripe.faults.add(fault)
    await shop.deliver(*shop.events("invoice.paid"))
    assert await ada.standing() == ("20.00", "starter", 1_000)
    shop.stripe.faults.clear()
    await shop.api.pool.execute("UPDATE stripe_events SET next_attempt_at = now()")
    await shop.meter.worker.follow_all()
    assert await ada.standing() == ("0.00", "starter", 1_000)


async def test_a_renewal_that_fails_gives_nothing_and_is_told_once(ada: Subscriber) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    await ada.told()
    webhook = {"url": "https://example.com/", "events": ["payment.failed"]}
    made = await shop.api.operator.post(f"{ADMIN}/users/ada/webhooks", json=webhook)
    assert made.status_code == 201, made.text
    v1: Any = shop.meter.gateway.client.v1
    _, customer_id = await shop.meter.purchases.find_customer("ada", False)
    (subscription,) = (await v1.subscriptions.list_async({"customer": customer_id})).data
    method = await v1.payment_methods.attach_async(
        "pm_card_chargeCustomerFail", {"customer": customer_id}
    )
    await v1.subscriptions.update_async(subscription.id, {"default_payment_method": method.id})
    await ada.advance(JANUARY + 32 * DAY)
    assert shop.events("invoice.payment_failed")
    assert await ada.told() == ("20.00", "starter", 1_000)
    assert (await ada.ask())["status"] == "past_due"
    # Stripe tries again, and fails again: the account hears of the period once.
    await ada.advance(JANUARY + 36 * DAY)
    assert await ada.told() == ("20.00", "starter", 1_000)
    path = f"{ADMIN}/users/ada/webhooks/{made.json()['id']}/messages"
    (told,) = (await shop.api.operator.get(path)).json()["data"]
    assert told["event"]["data"]["subscription_id"] == subscription.id
    assert (told["type"], told["event"]["data"]["plan"]) == ("payment.failed", "starter")
    # Paid with another card after all.
    good = await v1.payment_methods.attach_async("pm_card_visa", {"customer": customer_id})
    (invoice,) = (await v1.invoices.list_async({"customer": customer_id, "status": "open"})).data
    await v1.invoices.pay_async(invoice.id, {"payment_method": good.id})
    assert await ada.told() == ("40.00", "starter", 1_000)


async def test_a_pause_charges_nothing_from_the_next_period_on(ada: Subscriber) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    await ada.told()
    assert (await ada.ask("/pause", "POST"))["is_paused"]
    await ada.advance(JANUARY + 32 * DAY)
    assert await ada.told() == ("20.00", "starter", 1_000)
    # What was paid is over: no days of grace for a period that nobody is asked to pay.
    follower = shop.meter.subscriptions
    assert await follower.follow_overdue(datetime(2032, 2, 10, 13, tzinfo=UTC)) == 1
    assert await ada.standing() == ("20.00", "standard", None)
    assert not (await ada.ask("/unpause", "POST"))["is_paused"]
    assert len(await shop.payments("ada")) == 1
    await ada.advance(JANUARY + 62 * DAY)
    assert await ada.told() == ("40.00", "starter", 1_000)


async def test_a_plan_without_credit_has_a_payment_that_can_be_refunded(ada: Subscriber) -> None:
    shop = ada.shop
    price = {"amount": "19.00", "period": "month", "included_credit": "0"}
    await shop.api.operator.patch(f"{ADMIN}/plans/starter", json={"price": price})
    await ada.subscribe("starter")
    assert await ada.told() == ("0.00", "starter", 1_000)
    (paid,) = await shop.payments("ada")
    assert (paid["paid"], paid["credited"]) == ("19.00", "0.00")
    day = datetime.fromtimestamp(shop.stripe.world.books.rows(0, 1)[0]["at"], UTC).date()
    compared = await nightly(shop).compare_again(day)
    assert compared.report.is_ok, compared.report.differences
    path, key = f"{ADMIN}/payments/{paid['id']}/refunds", {"Idempotency-Key": "one"}
    answer = await shop.api.operator.post(path, json={}, headers=key)
    assert answer.status_code < 300, answer.text
    for _ in range(2):
        await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "0.00"
    day = datetime.fromtimestamp(shop.stripe.world.books.rows(1, 1)[0]["at"], UTC).date()
    compared = await nightly(shop).compare_again(day)
    assert compared.report.is_ok, compared.report.differences
    verified = (await shop.api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert verified["ok"], verified["failures"]


async def test_a_charge_of_a_subscription_that_was_never_booked_is_a_difference(
    ada: Subscriber,
) -> None:
    shop = ada.shop
    await ada.subscribe("starter")
    row = shop.stripe.world.books.rows(0, 1)[0]
    day = datetime.fromtimestamp(row["at"], UTC).date()
    compared = await nightly(shop).compare_again(day)
    (difference,) = compared.report.differences
    assert (difference.cause, difference.account_id) == (row["payment_intent"], "ada")
    assert compared.report.not_ours == 0
    await ada.told()
    assert (await nightly(shop).compare_again(day)).report.is_ok


def nightly(shop: Shop) -> NightlyComparison:
    """The comparison of a meter whose clock is days ahead, so that today is over."""
    store = ComparisonStore(shop.api.pool)
    return NightlyComparison(shop.meter.gateway, store, DaysAhead(), shop.meter.metrics)


class DaysAhead:
    """A clock that is two days ahead."""

    def now(self) -> datetime:
        """Return the time of the machine, moved on."""
        return datetime.now(UTC) + 2 * DAY

    def monotonic_s(self) -> float:
        """Return nothing of use: a comparison does not measure."""
        return 0.0
