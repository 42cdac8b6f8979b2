"""Stripe's balance of a day beside the postings of payments: equal, or each difference named."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from meter.errors import Outage
from meter.payments.nightly.comparison_store import Comparison, ComparisonRuns, ComparisonStore
from meter.payments.nightly.run import NightlyComparison
from tests.books import Books
from tests.meter_api import ADMIN
from tests.shop import VISA, Shop, selling
from tollkeeper.simulator.stripe.faults import Fault, Trouble

DISPUTED = "4000000000000259"
REFUND_FAILS = "4000000000005126"
PATH = f"{ADMIN}/stripe-comparisons"


class Later:
    """A clock that is some days ahead."""

    def __init__(self, days: int) -> None:
        self.ahead = timedelta(days=days)

    def now(self) -> datetime:
        """Return the time of the machine, moved on."""
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        """Return nothing of use: a comparison does not measure."""
        return 0.0


@pytest_asyncio.fixture
async def shop(books: Books) -> AsyncIterator[Shop]:
    """A meter with a user who has no credit."""
    async with selling(books.pool) as opened:
        await opened.api.user("ada")
        yield opened


def nightly(shop: Shop, days: int = 2) -> NightlyComparison:
    """The comparison of a meter whose clock is days ahead, so that today is over."""
    store = ComparisonStore(shop.api.pool)
    return NightlyComparison(shop.meter.gateway, store, Later(days), shop.meter.metrics)


async def compare(shop: Shop) -> Comparison:
    """Compare the day of the first movement. A midnight in between would be a day of its own."""
    at = shop.stripe.world.books.rows(0, 1)[0]["at"]
    return await nightly(shop).compare_again(datetime.fromtimestamp(at, UTC).date())


def shown(compared: Comparison) -> dict[str, tuple[int, int]]:
    """The cents of each kind in both books."""
    return {one.kind: (one.stripe_cents, one.booked_cents) for one in compared.report.kinds}


async def buy_and_take_back(shop: Shop) -> None:
    """Pay three times; one is refunded in part, one in vain, one disputed and won."""
    cards = {"10.00": VISA, "11.00": REFUND_FAILS, "12.00": DISPUTED}
    for amount, card in cards.items():
        await shop.buy("ada", amount, card)
    await shop.deliver(*shop.events())
    v1: Any = shop.meter.gateway._client.v1
    paid = {one["paid"]: one["id"] for one in await shop.payments("ada")}
    await v1.refunds.create_async({"payment_intent": paid["10.00"], "amount": 300})
    await v1.refunds.create_async({"payment_intent": paid["11.00"], "amount": 1100})
    (dispute,) = (await v1.disputes.list_async({"payment_intent": paid["12.00"]})).data
    evidence = {"uncategorized_text": "winning_evidence"}
    await v1.disputes.update_async(dispute.id, {"evidence": evidence, "submit": True})
    shop.stripe.world.wall.catch_up()
    await shop.deliver(*shop.events())


async def test_both_books_agree_and_fees_are_apart(shop: Shop) -> None:
    await buy_and_take_back(shop)
    compared = await compare(shop)
    assert compared.report.is_ok, compared.report.differences
    assert shown(compared) == {
        "charge": (3300, 3300),
        "refund": (1400, 1400),
        "refund_failed": (1100, 1100),
        "dispute_withdrawn": (1200, 1200),
        "dispute_reinstated": (1200, 1200),
    }
    # 2.9 % and 30 cents of each charge, and 15 dollars for the dispute.
    assert [(one.currency, one.cents) for one in compared.report.fees] == [("usd", 1686)]
    assert (compared.report.not_ours, compared.report.pending) == (0, 0)
    (listed,) = (await shop.api.operator.get(PATH)).json()["data"]
    assert (listed["ok"], listed["difference_count"]) == (True, 0)
    assert listed["kinds"][0] == {
        "kind": "charge",
        "stripe_count": 3,
        "stripe": "33.00",
        "booked_count": 3,
        "booked": "33.00",
    }


async def test_each_difference_is_named(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    (credited,) = await shop.payments("ada")
    # Two more that nobody tells us about: a payment, and a refund of the first.
    session_id = await shop.buy("ada", "20.00")
    lost = shop.stripe.world.store.get("checkout.session", session_id)["payment_intent"]
    v1: Any = shop.meter.gateway._client.v1
    refund = await v1.refunds.create_async({"payment_intent": credited["id"], "amount": 400})
    # And one that Stripe knows nothing of.
    await shop.api.pool.execute(
        "INSERT INTO payments (id, purchase_id, account_id, is_live, paid_cents, credited_picos,"
        " posting_id, paid_at) SELECT 'pi_invented', id, account_id, false, 700, 1,"
        " gen_random_uuid(), now() FROM purchases LIMIT 1"
    )
    compared = await compare(shop)
    found = {
        one.cause: (one.kind, one.account_id, one.stripe_cents, one.booked_cents)
        for one in compared.report.differences
    }
    assert found == {
        lost: ("charge", "ada", 2000, None),
        f"{refund.id}:refund": ("refund", "ada", 400, None),
        "pi_invented": ("charge", "ada", None, 700),
    }
    assert shown(compared)["charge"] == (3000, 1700)
    metrics = await shop.api.anybody.get("/metrics")
    assert "tollkeeper_stripe_comparison_differences 3.0" in metrics.text
    # Followed at last, they are gone, but for what was invented.
    await shop.deliver(*shop.events())
    again = await compare(shop)
    assert [one.cause for one in again.report.differences] == ["pi_invented"]


async def test_payments_of_others_and_of_another_amount(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    v1: Any = shop.meter.gateway._client.v1
    await v1.payment_intents.create_async(
        {
            "amount": 555,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "payment_method_types": ["card"],
            "confirm": True,
        }
    )
    shop.stripe.world.wall.catch_up()
    for one in shop.stripe.world.store.of("balance_transaction"):
        if one["amount"] == 1000:
            one["amount"] = 1001
    report = (await compare(shop)).report
    assert report.not_ours == 1
    ((stripe_cents, booked_cents, sentence),) = (
        (one.stripe_cents, one.booked_cents, one.sentence) for one in report.differences
    )
    assert (stripe_cents, booked_cents) == (1001, 1000)
    assert "10.01 USD" in sentence and "10.00 USD" in sentence


async def test_a_balance_in_another_currency_is_compared_by_what_was_sold(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    for one in shop.stripe.world.store.of("balance_transaction"):
        one.update(currency="eur", amount=920, fee=57, exchange_rate=0.92)
    report = (await compare(shop)).report
    assert report.is_ok, report.differences
    assert [(one.currency, one.cents) for one in report.fees] == [("eur", 57)]


async def test_missed_nights_are_caught_up_once_and_not_without_end(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    store = ComparisonStore(shop.api.pool)
    await nightly(shop, 3).step()
    first = {one.day for one in await store.list_page(None, 100)}
    assert len(first) == 1
    # Two meters come back after a week, and after a year.
    await asyncio.gather(nightly(shop, 10).step(), nightly(shop, 10).step())
    week = [one.day for one in await store.list_page(None, 100)]
    assert len(week) == len(set(week)) == 8
    assert max(week) - min(week) == timedelta(days=7)
    await nightly(shop, 400).step()
    assert len(await store.list_page(None, 100)) == 8 + 31


async def test_a_comparison_that_fails_is_tried_again(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    shop.stripe.faults.add(Fault(trouble=Trouble.ERROR, match="GET /v1/balance*", times=1))
    with pytest.raises(Outage):
        await compare(shop)
    assert (await compare(shop)).report.is_ok


async def test_a_day_that_runs_or_is_not_over_is_refused(shop: Shop) -> None:
    today = datetime.now(UTC).date() + timedelta(days=1)
    refused = await shop.api.operator.post(PATH, json={"day": today.isoformat()})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    for wrong in ("2026-02-31", "yesterday", "2026-1-1"):
        refused = await shop.api.operator.post(PATH, json={"day": wrong})
        assert refused.status_code == 422, refused.text
    day = date(2026, 1, 5)
    await ComparisonStore(shop.api.pool).take(False, day, again=False)
    with pytest.raises(ComparisonRuns):
        await nightly(shop).compare_again(day)
    assert not await ComparisonStore(shop.api.pool).take(False, day, again=False)
    empty = await shop.api.operator.post(PATH, json={"day": "2026-01-04"})
    assert (empty.status_code, empty.json()["ok"]) == (201, True), empty.text
