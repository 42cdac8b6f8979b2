"""A saved card is charged when credit runs low: once, within the ceiling, or they pause."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.stripe_facts import StripeUnavailable
from tests.books import Books
from tests.shop import Shop, selling
from tollkeeper.simulator.stripe.faults import Fault, Trouble

PATH = "/api/v1/billing/auto-top-up"
TERMS = {"threshold": "20.00", "amount": "10.00", "monthly_ceiling": "25.00"}
# Charges it once at the page, and asks for its holder whenever they are away.
ASKS_OFF_SESSION = "4000002760003184"
# Attaches, and is declined whenever it is charged.
DECLINED_LATER = "pm_card_chargeCustomerFail"


@pytest_asyncio.fixture
async def shop(books: Books) -> AsyncIterator[Shop]:
    """A meter with a user who has no credit."""
    async with selling(books.pool) as opened:
        await opened.api.user("ada")
        yield opened


async def key_with_card(shop: Shop, card: str | None = None) -> str:
    """A key of a user with ten dollars, a saved card, and automatic top-ups."""
    await shop.buy("ada", "10.00", save_card=True)
    await shop.deliver(*shop.events())
    if card is not None:
        v1, customer = shop.meter.gateway._client.v1, await customer_of(shop)
        method = await v1.payment_methods.attach_async(card, {"customer": customer})
        await shop.meter.gateway.keep_card(customer, method.id)
    key: str = (await shop.api.key("ada", scopes=["usage:read", "billing:write"]))["key"]
    set_ = await shop.api.as_key(key, PATH, "PUT", TERMS)
    assert set_.status_code == 200, set_.text
    return key


async def customer_of(shop: Shop) -> str:
    """The user's customer at Stripe."""
    return str(await shop.api.pool.fetchval("SELECT customer_id FROM stripe_customers"))


async def shown(shop: Shop, key: str) -> dict[str, Any]:
    """The automatic top-ups as their account sees them."""
    answer = await shop.api.as_key(key, PATH)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def look_again(shop: Shop) -> int:
    """Look as if the pause before the next attempt were over."""
    await shop.api.pool.execute("UPDATE auto_top_ups SET next_attempt_at = now()")
    return await shop.meter.auto_top_ups.look()


async def test_eight_looks_at_once_charge_once(shop: Shop) -> None:
    key = await key_with_card(shop)
    await asyncio.gather(*(shop.meter.auto_top_ups.look() for _ in range(8)))
    assert await shop.balance("ada") == "20.00"
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "20.00"
    assert (await shown(shop, key))["charged_this_month"] == "10.00"
    await shop.assert_equal_books()


async def test_a_look_that_comes_late_charges_nothing_more(shop: Shop) -> None:
    await key_with_card(shop)
    store = AutoTopUpStore(shop.api.pool)
    assert await store.list_due(10) == ["ada"]
    await shop.meter.auto_top_ups.look()
    # It found the account low before the other look had charged.
    await shop.api.pool.execute("UPDATE auto_top_ups SET next_attempt_at = now()")
    assert await store.open_purchase("ada", is_live=False) is None
    assert await shop.balance("ada") == "20.00"


async def test_the_ceiling_of_a_month_holds(shop: Shop) -> None:
    key = await key_with_card(shop)
    assert (await shop.api.as_key(key, PATH, "PUT", {**TERMS, "threshold": "500"})).is_success
    for _ in range(5):
        await look_again(shop)
    # Ten that were bought, and twice ten: the third would be beyond 25.
    assert await shop.balance("ada") == "30.00"
    await shop.assert_equal_books()


async def test_a_card_that_asks_for_its_holder_pauses(shop: Shop) -> None:
    key = await key_with_card(shop, "pm_card_authenticationRequired")
    assert await shop.meter.auto_top_ups.look() == 1
    assert "authentication_required" in (await shown(shop, key))["paused_reason"]
    assert await look_again(shop) == 0
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "10.00"
    await shop.api.as_key(key, PATH, "PUT", TERMS)
    assert (await shown(shop, key))["paused_reason"] is None


async def test_soft_declines_wait_longer_each_time_and_then_pause(shop: Shop) -> None:
    key = await key_with_card(shop, DECLINED_LATER)
    waits = []
    for _ in range(3):
        assert await look_again(shop) == 1
        waits.append(
            await shop.api.pool.fetchval(
                "SELECT round(extract(epoch FROM next_attempt_at - now()) / 3600)::int"
                " FROM auto_top_ups"
            )
        )
        assert (await shown(shop, key))["paused_reason"] is None
    assert waits == [1, 6, 24]
    assert await look_again(shop) == 1
    assert "declined 4 times" in (await shown(shop, key))["paused_reason"]
    assert await shop.balance("ada") == "10.00"


async def test_without_a_saved_card_nothing_is_charged(shop: Shop) -> None:
    await shop.buy("ada", "10.00")
    await shop.deliver(*shop.events())
    key = (await shop.api.key("ada", scopes=["usage:read", "billing:write"]))["key"]
    await shop.api.as_key(key, PATH, "PUT", TERMS)
    await shop.meter.auto_top_ups.look()
    assert "no card is saved" in (await shown(shop, key))["paused_reason"]


@pytest.mark.parametrize("trouble", [Trouble.ERROR_AFTER_COMMIT, Trouble.CUT_AFTER_COMMIT])
async def test_an_answer_that_is_lost_is_looked_up_and_not_charged_again(
    shop: Shop, trouble: Trouble
) -> None:
    await key_with_card(shop)
    shop.stripe.faults.add(Fault(trouble=trouble, match="POST /v1/payment_intents", times=None))
    with suppress(StripeUnavailable):
        await shop.meter.auto_top_ups.look()
    shop.stripe.faults.clear()
    assert await look_again(shop) == 0
    await shop.meter.auto_top_ups.find_lost(timedelta(0))
    assert await shop.balance("ada") == "20.00"
    await shop.deliver(*shop.events())
    await shop.assert_equal_books()
    assert await shop.balance("ada") == "20.00"


async def test_terms_that_make_no_sense_are_refused(shop: Shop) -> None:
    key = (await shop.api.key("ada", scopes=["usage:read", "billing:write"]))["key"]
    for wrong in ({"amount": "1.00"}, {"monthly_ceiling": "9.00"}, {"amount": "10.001"}):
        refused = await shop.api.as_key(key, PATH, "PUT", {**TERMS, **wrong})
        assert refused.status_code == 422, wrong
    assert (await shop.api.as_key(key, PATH)).status_code == 404
    assert (await shop.api.as_key(key, PATH, "DELETE")).status_code == 404
