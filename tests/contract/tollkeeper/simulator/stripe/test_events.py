"""Events and webhooks of the Stripe simulator: lists, signatures, retries, faults."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.patience import WAIT_S
from tests.stripe_simulator import Stripe, stripe_running


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running() as running:
        yield running


async def make(shop: Stripe, count: int = 1) -> None:
    for number in range(count):
        await shop.v1.customers.create_async({"name": f"customer {number}"})


async def until_quiet(shop: Stripe) -> None:
    async with asyncio.timeout(WAIT_S):
        await shop.simulator.deliveries.until_quiet()


async def names(shop: Stripe, **filters: Any) -> list[str]:
    page = await shop.v1.events.list_async(filters)
    return [event.data.object["name"] for event in page.data]


async def test_events_are_listed_newest_first_and_in_pages(shop: Stripe) -> None:
    await make(shop, 5)
    assert await names(shop, limit=2) == ["customer 4", "customer 3"]
    page = await shop.v1.events.list_async({"limit": 2})
    assert page.has_more
    rest = await names(shop, starting_after=page.data[-1].id)
    assert rest == ["customer 2", "customer 1", "customer 0"]
    oldest = (await shop.v1.events.list_async({"limit": 100})).data[-1]
    page = await shop.v1.events.list_async({"ending_before": oldest.id, "limit": 2})
    seen = [event.data.object["name"] async for event in page.auto_paging_iter()]
    assert seen == ["customer 1", "customer 2", "customer 3", "customer 4"]
    assert await names(shop, type="customer.deleted") == []
    assert len(await names(shop, types=["customer.created", "customer.deleted"])) == 5
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.events.list_async({"type": "a", "types": ["b"]})
    event = await shop.v1.events.retrieve_async(oldest.id)
    assert event.request is not None and event.request.id.startswith("req_")
    assert event.api_version == "2026-10-28.endive"


async def test_events_are_forgotten_after_30_days(shop: Stripe) -> None:
    await make(shop)
    now = shop.simulator.world.wall.now()
    assert await names(shop, created={"gte": now - 60}) == ["customer 0"]
    await shop.control("POST", "clock", seconds=31 * 24 * 3600)
    assert await names(shop) == []
    assert await names(shop, created={"gte": now - 60}) == []


async def test_a_failed_delivery_is_tried_again(shop: Stripe) -> None:
    shop.receiver.statuses += [500, 302]
    await make(shop)
    events = await shop.receiver.until("customer.created", 3)
    assert len({event.id for event in events}) == 1
    await until_quiet(shop)
    assert await names(shop, delivery_success=True) == ["customer 0"]


async def test_what_fails_for_good_stays_undelivered(shop: Stripe) -> None:
    shop.receiver.statuses += [500] * 4
    await make(shop)
    await until_quiet(shop)
    await make(shop)
    await until_quiet(shop)
    assert len(await names(shop, delivery_success=False)) == 1
    [failed] = (await shop.v1.events.list_async({"delivery_success": False})).data
    assert failed.pending_webhooks == 1
    await shop.control("POST", f"events/{failed.id}/resend")
    await until_quiet(shop)
    assert await names(shop, delivery_success=False) == []


async def test_webhooks_are_lost_doubled_delayed_and_reordered(shop: Stripe) -> None:
    await shop.control("POST", "faults", trouble="lose", match="customer.*")
    await make(shop)
    await until_quiet(shop)
    assert shop.receiver.events == []
    assert await names(shop, delivery_success=False) == ["customer 0"]
    await shop.control("POST", "faults", trouble="duplicate")
    await make(shop)
    await until_quiet(shop)
    assert len(shop.receiver.events) == 2
    for fault in ({"trouble": "reorder"}, {"trouble": "delay", "delay_ms": 20}):
        shop.receiver.events.clear()
        await shop.control("POST", "faults", **fault)
        await make(shop, 2)
        await until_quiet(shop)
        await shop.receiver.until("customer.created", 2)
    reordered = [event.data.object["name"] for event in shop.receiver.events]
    assert sorted(reordered) == ["customer 0", "customer 1"]
    assert (await shop.control("GET", "faults"))["faults"] == []


async def test_a_held_event_comes_after_the_next(shop: Stripe) -> None:
    await shop.control("POST", "faults", trouble="reorder")
    await make(shop, 2)
    events = await shop.receiver.until("customer.created", 2)
    assert [event.data.object["name"] for event in events] == ["customer 1", "customer 0"]


async def test_an_endpoint_gets_its_types_with_a_secret_of_its_own(shop: Stripe) -> None:
    [first] = (await shop.v1.webhook_endpoints.list_async()).data
    await shop.v1.webhook_endpoints.update_async(first.id, {"disabled": True})
    made = await shop.v1.webhook_endpoints.create_async(
        {"url": f"{shop.receiver.url}/hook", "enabled_events": ["product.created"]}
    )
    assert made.secret is not None and made.secret.startswith("whsec_")
    shop.receiver.secret = made.secret
    again = await shop.v1.webhook_endpoints.retrieve_async(made.id)
    assert not hasattr(again, "secret")
    await make(shop)
    await shop.v1.products.create_async({"name": "One"})
    await until_quiet(shop)
    assert shop.receiver.types() == ["product.created"]
    deleted = await shop.v1.webhook_endpoints.delete_async(made.id)
    assert deleted.deleted
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.webhook_endpoints.create_async({"url": "nowhere", "enabled_events": ["*"]})
