"""Credit bought through the simulator of Stripe, with Stripe's own library."""

import asyncio
import base64
import hashlib
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from meter.payments import stripe_gateway, sweep
from meter.payments.event_store import KNOWN_EVENTS, REVERSAL_EVENTS
from meter.payments.payment_store import PaymentStore
from meter.payments.stripe_facts import StripeUnavailable
from tests.books import USD, Books
from tests.meter_api import ADMIN
from tests.shop import Shop, selling
from tollkeeper.simulator.stripe.faults import Fault, Trouble

DECLINED = "4000000000000002"
DISPUTED = "4000000000000259"
NO_TIME = timedelta(0)


@pytest_asyncio.fixture
async def shop(books: Books) -> AsyncIterator[Shop]:
    """A meter with a user who has no credit."""
    async with selling(books.pool) as opened:
        await opened.api.user("ada")
        yield opened


async def test_a_user_buys_credit(shop: Shop) -> None:
    key = (await shop.api.key("ada", scopes=["usage:read", "billing:write"]))["key"]
    terms = (await shop.api.as_key(key, "/api/v1/billing")).json()
    assert (terms["is_selling"], terms["mode"], terms["least"]) == (True, "test", "5.00")
    bought = await shop.api.as_key(key, "/api/v1/billing/checkout", "POST", {"amount": "25.00"})
    assert bought.status_code == 201, bought.text
    await shop.pay(bought.json()["url"])
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "25.00"
    (payment,) = (await shop.api.as_key(key, "/api/v1/billing/payments")).json()["data"]
    assert (payment["paid"], payment["credited"], payment["reversed"]) == ("25.00", "25.00", "0.00")
    assert payment["receipt_url"]
    (purchase,) = (await shop.api.as_key(key, "/api/v1/billing/purchases")).json()["data"]
    assert (purchase["state"], purchase["id"]) == ("paid", payment["purchase_id"])
    portal = await shop.api.as_key(key, "/api/v1/credits")
    assert portal.json()["available"] == "25.00"
    await shop.assert_equal_books()


async def test_buying_needs_its_own_scope(shop: Shop) -> None:
    key = (await shop.api.key("ada"))["key"]
    refused = await shop.api.as_key(key, "/api/v1/billing/checkout", "POST", {"amount": "25.00"})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("amount", ["4.99", "500.01", "5.001", "-5", "0", "1e3", "9999999"])
async def test_what_is_not_for_sale_is_refused_with_the_bounds(shop: Shop, amount: str) -> None:
    path = f"{ADMIN}/users/ada/checkout"
    refused = await shop.api.operator.post(path, json={"amount": amount})
    assert refused.status_code == 422, refused.text
    assert await shop.state("ada") == []


async def test_the_administrator_sets_the_bounds(shop: Shop) -> None:
    body = {"least": "1.00", "most": "10.00"}
    changed = await shop.api.operator.put(f"{ADMIN}/selling", json=body)
    assert (changed.status_code, changed.json()["most"]) == (200, "10.00")
    await shop.open("ada", "1.00")
    refused = await shop.api.operator.post(f"{ADMIN}/users/ada/checkout", json={"amount": "11"})
    assert refused.json()["detail"] == "credit is sold from 1.00 to 10.00 USD at once"
    wrong = await shop.api.operator.put(f"{ADMIN}/selling", json={"least": "5.00", "most": "4.00"})
    assert wrong.status_code == 422


async def test_every_order_and_repetition_of_events_credits_once(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    events = shop.events("checkout.session.completed", "payment_intent.succeeded")
    assert len(events) == 2
    for order in itertools.permutations(events * 2):
        await shop.deliver(*order)
        await shop.api.pool.execute("UPDATE stripe_events SET state = 'waiting'")
    assert await shop.balance("ada") == "10.00"
    assert len(await shop.payments("ada")) == 1
    await shop.assert_equal_books()


async def test_webhook_return_page_and_sweep_at_once_credit_once(shop: Shop) -> None:
    session_id = await shop.buy("ada", "10.00")
    back = [
        shop.api.anybody.get("/api/v1/billing/return", params={"session_id": session_id})
        for _ in range(8)
    ]
    sweeps = [shop.meter.sweep.look_at_purchases(NO_TIME) for _ in range(4)]
    await asyncio.gather(*back, *sweeps, shop.deliver(*shop.events()), shop.meter.sweep.sweep())
    assert await shop.balance("ada") == "10.00"
    await shop.assert_equal_books()


async def test_the_return_page_fulfils_what_the_webhook_has_not(shop: Shop) -> None:
    session_id = await shop.buy("ada", "10.00")
    page = await shop.api.anybody.get("/api/v1/billing/return", params={"session_id": session_id})
    assert page.status_code == 200
    assert "your credit is there" in page.text
    assert await shop.balance("ada") == "10.00"


async def test_the_return_page_asks_stripe_about_sessions_of_ours_only(shop: Shop) -> None:
    await shop.open("ada", "10.00")
    for session_id in ("", "cs_test_of_another", "../../v1/balance", "cs_" + "x" * 290):
        page = await shop.api.anybody.get(
            "/api/v1/billing/return", params={"session_id": session_id}
        )
        assert "Nothing was paid" in page.text


async def test_the_sweep_finds_what_the_webhook_missed(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.meter.sweep.sweep()
    assert await shop.balance("ada") == "0.00"
    await shop.meter.worker.follow_all()
    assert await shop.balance("ada") == "10.00"
    stored = (await shop.api.operator.get(f"{ADMIN}/stripe-events")).json()["data"]
    assert {one["source"] for one in stored} == {"sweep"}
    # What comes late by the webhook is a repetition.
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "10.00"


async def test_an_object_is_asked_for_once_for_all_that_is_told_of_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.buy("ada", "10.00", DISPUTED)
    shop.stripe.world.wall.skip(60)
    told = [one.type for one in shop.events(*REVERSAL_EVENTS)]
    assert len(told) > 1
    asked: list[str] = []
    find = shop.meter.gateway.find_payment_id

    async def find_payment_id(event_type: str, object_id: str) -> str | None:
        asked.append(object_id)
        return await find(event_type, object_id)

    monkeypatch.setattr(shop.meter.gateway, "find_payment_id", find_payment_id)
    await shop.deliver(*shop.events())
    assert len(asked) == len(set(asked)) < len(told)
    assert await shop.balance("ada") == "0.00"
    await shop.assert_equal_books()


async def test_a_sweep_goes_on_where_an_outage_has_ended_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "EVENTS_AT_ONCE", 4)
    monkeypatch.setattr(stripe_gateway, "PAGE_ROWS", 4)
    for _ in range(8):
        await shop.buy("ada", "10.00")
    sweeping, log = shop.meter.sweep, shop.stripe.world.events
    known = {one.id for one in shop.events(*KNOWN_EVENTS)}
    assert len(known) == 16
    # The last ones are of this moment, the others lie days back.
    began = datetime.now(UTC) - timedelta(days=20)
    for number, event in enumerate(shop.events()[:-6]):
        event.created = int((began + number * timedelta(hours=3)).timestamp())
    pages, listed = 0, log.page

    def page(*given: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 12:
            shop.stripe.faults.add(Fault(trouble=Trouble.ERROR))
        return listed(*given)

    monkeypatch.setattr(log, "page", page)
    with pytest.raises(StripeUnavailable):
        await sweeping.list_events()
    noted = await shop.api.pool.fetchval("SELECT listed_up_to FROM stripe_sweeps")
    assert noted > began
    before = await shop.api.pool.fetchval("SELECT count(*) FROM stripe_events")
    assert 0 < before < len(known)
    assert await sweeping.list_events() == len(known) - before
    stored = await shop.api.pool.fetch("SELECT id FROM stripe_events")
    assert {row["id"] for row in stored} == known
    # What is listed again is the last hour.
    assert await sweeping.list_events() == 0


async def test_the_sweep_finds_payments_whose_events_are_gone(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    assert await shop.meter.sweep.look_at_purchases(timedelta(minutes=15)) == 0
    assert await shop.meter.sweep.look_at_purchases(NO_TIME) == 1
    assert await shop.balance("ada") == "10.00"


async def test_a_declined_card_and_an_expired_page_credit_nothing(shop: Shop) -> None:
    opened = await shop.open("ada", "10.00")
    await shop.pay(opened["url"], DECLINED)
    await shop.deliver(*shop.events())
    assert await shop.state("ada") == [("open", None)]
    shop.stripe.world.wall.skip(3 * 3600)
    await shop.deliver(*shop.events())
    assert await shop.state("ada") == [("ended", "not paid in time")]
    assert await shop.balance("ada") == "0.00"


async def test_tax_is_not_credited_and_a_refund_takes_what_was_bought(shop: Shop) -> None:
    terms = {"least": "1.00", "most": "100.00", "is_taxed": True}
    assert (await shop.api.operator.put(f"{ADMIN}/selling", json=terms)).status_code == 200
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "10.00"
    (payment,) = await shop.payments("ada")
    assert (payment["paid"], payment["credited"]) == ("11.00", "10.00")
    path = f"{ADMIN}/payments/{payment['id']}/refunds"
    headers = {"Idempotency-Key": "refund-1"}
    half = await shop.api.operator.post(path, json={"amount": "5.50"}, headers=headers)
    assert (half.status_code, half.json()["reversed"]) == (201, "5.00"), half.text
    assert await shop.balance("ada") == "5.00"


async def test_a_refund_is_made_once_for_its_key_and_posted_once(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    (payment,) = await shop.payments("ada")
    path = f"{ADMIN}/payments/{payment['id']}/refunds"
    for _ in range(2):
        answer = await shop.api.operator.post(path, json={}, headers={"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.json()["reversed"]) == (201, "10.00"), answer.text
    again = await shop.api.operator.post(path, json={}, headers={"Idempotency-Key": "k2"})
    assert (again.status_code, again.json()["code"]) == (409, "stripe_refused")
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "0.00"
    detail = (await shop.api.operator.get(f"{ADMIN}/payments/{payment['id']}")).json()
    assert [one["kind"] for one in detail["reversals"]] == ["refund"]
    await shop.assert_equal_books()


async def test_refunds_at_stripe_in_every_order(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    (paid,) = shop.events("payment_intent.succeeded")
    payment_id = paid.to_json()["data"]["object"]["id"]
    for cents in (100, 250):
        await shop.meter.gateway.refund(payment_id, cents, f"k{cents}")
    events = shop.events()
    random.Random(7).shuffle(events)
    # The refund is known before its payment.
    events.sort(key=lambda one: not one.type.startswith(("refund", "charge.refunded")))
    await shop.deliver(*events)
    assert await shop.balance("ada") == "6.50"
    await shop.assert_equal_books()


async def test_a_refund_that_fails_gives_the_credit_back(shop: Shop) -> None:
    await shop.buy("ada", "10.00", "4000000000005126")
    await shop.deliver(*shop.events())
    (payment,) = await shop.payments("ada")
    await shop.meter.gateway.refund(payment["id"], None, "k1")
    await shop.deliver(*shop.events("refund.created", "charge.refunded"))
    shop.stripe.world.wall.skip(10)
    failed = shop.events("refund.failed")
    assert failed
    await shop.deliver(*failed)
    assert await shop.balance("ada") == "10.00"
    await shop.assert_equal_books()


@pytest.mark.parametrize(
    ("evidence", "left"), [("winning_evidence", "10.00"), ("losing_evidence", "0.00")]
)
async def test_a_dispute_takes_credit_and_a_won_one_gives_it_back(
    shop: Shop, evidence: str, left: str
) -> None:
    await shop.buy("ada", "10.00", "4000000000000259")
    shop.stripe.world.wall.skip(60)
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "0.00"
    (created,) = shop.events("charge.dispute.created")
    dispute_id = created.to_json()["data"]["object"]["id"]
    await shop.meter.gateway._client.v1.disputes.update_async(
        dispute_id, {"evidence": {"uncategorized_text": evidence}, "submit": True}
    )
    shop.stripe.world.wall.skip(10)
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == left
    await shop.assert_equal_books()


async def test_objects_of_others_have_no_effect(shop: Shop) -> None:
    """Events of another account at Stripe, of payments that we did not begin, of other modes."""
    v1 = shop.meter.gateway._client.v1
    intent = await v1.payment_intents.create_async(
        {
            "amount": 5_000,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {"tollkeeper_account": "ada"},
        }
    )
    assert intent.status == "succeeded"
    await shop.deliver(*shop.events())
    listed = (await shop.api.operator.get(f"{ADMIN}/stripe-events?state=foreign")).json()["data"]
    assert {one["object_id"] for one in listed} >= {intent.id}
    assert await shop.balance("ada") == "0.00"
    assert await shop.payments("ada") == []


async def test_a_customer_that_was_deleted_at_stripe_is_made_anew(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    old = await shop.api.pool.fetchval("SELECT customer_id FROM stripe_customers")
    await shop.meter.gateway._client.v1.customers.delete_async(old)
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "20.00"
    assert await shop.api.pool.fetchval("SELECT customer_id FROM stripe_customers") != old


async def test_an_administrator_replays_an_event(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    (event,) = shop.events("checkout.session.completed")
    replayed = await shop.api.operator.post(f"{ADMIN}/stripe-events/{event.id}/replay")
    assert (replayed.status_code, replayed.json()["state"]) == (200, "waiting")
    assert await shop.meter.worker.follow_all() == 1
    assert await shop.balance("ada") == "10.00"
    unknown = await shop.api.operator.post(f"{ADMIN}/stripe-events/evt_0/replay")
    assert unknown.status_code == 404


async def test_the_page_to_buy_runs_its_own_script_only(shop: Shop) -> None:
    page = await shop.api.anybody.get("/api/v1/billing/buy")
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    assert "Test mode: no money moves" in page.text
    assert "from 5.00 to 500.00" in page.text
    policy = page.headers["content-security-policy"]
    for element in ("script", "style"):
        text = page.text.split(f"<{element}>")[1].split(f"</{element}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


async def test_bought_credit_expires_under_the_terms_of_its_purchase(shop: Shop) -> None:
    terms = {"least": "1.00", "most": "100.00"}
    set_ = await shop.api.operator.put(f"{ADMIN}/selling", json={**terms, "credit_days": 30})
    assert set_.json()["credit_days"] == 30
    await shop.buy("ada", "10.00")
    # Terms that change meanwhile count for later purchases.
    assert (await shop.api.operator.put(f"{ADMIN}/selling", json=terms)).is_success
    await shop.buy("ada", "5.00")
    for _ in range(2):
        await shop.deliver(*shop.events())
    (lot,) = (await shop.api.operator.get(f"{ADMIN}/users/ada/credits/lots")).json()["data"]
    expired = {one["credited"]: one["paid_at"] for one in await shop.payments("ada")}
    expires_at, paid_at = (
        datetime.fromisoformat(one) for one in (lot["expires_at"], expired["10.00"])
    )
    assert (lot["amount"], expires_at - paid_at) == ("10.00", timedelta(days=30))
    assert await shop.balance("ada") == "15.00"
    # Followed again when it has expired, it is still the same credit.
    (first,) = [one for one in await shop.payments("ada") if one["credited"] == "10.00"]
    purchase = await shop.meter.purchases.find(UUID(first["purchase_id"]))
    facts = await shop.meter.gateway.find_payment(first["id"])
    assert purchase is not None
    assert facts is not None
    long_ago = replace(facts, paid_at=facts.paid_at - timedelta(days=31))
    assert not await PaymentStore(shop.api.pool).credit(purchase, long_ago, 10 * USD)
    # A refund takes the credit that never expires first, then the lot.
    path, key = f"{ADMIN}/payments/{first['id']}/refunds", {"Idempotency-Key": "one"}
    assert (await shop.api.operator.post(path, json={}, headers=key)).is_success
    await shop.deliver(*shop.events())
    (lot,) = (await shop.api.operator.get(f"{ADMIN}/users/ada/credits/lots")).json()["data"]
    assert (await shop.balance("ada"), lot["remaining"]) == ("5.00", "5.00")
    await shop.assert_equal_books()
