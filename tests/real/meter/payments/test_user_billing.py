"""Administrators see a user's billing, and act on the user's behalf."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.books import Books
from tests.meter_api import ADMIN, every_page
from tests.shop import Shop, selling

TERMS = {"threshold": "20.00", "amount": "10.00", "monthly_ceiling": "25.00"}
UNKNOWN = f"{ADMIN}/users/nobody"


@pytest_asyncio.fixture
async def shop(books: Books) -> AsyncIterator[Shop]:
    """A meter with a user who has no credit."""
    async with selling(books.pool) as opened:
        await opened.api.user("ada")
        yield opened


async def test_credit_is_the_subtotal_less_the_discount_and_invoices_show_the_tax(
    shop: Shop,
) -> None:
    flags = {"is_taxed": True, "takes_promotion_codes": True, "makes_invoices": True}
    terms = {"least": "1.00", "most": "100.00", **flags}
    changed = await shop.api.operator.put(f"{ADMIN}/selling", json=terms)
    assert changed.json()["makes_invoices"]
    v1 = shop.meter.gateway._client.v1
    coupon = await v1.coupons.create_async({"percent_off": 25, "duration": "once"})
    await v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "QUARTER"}
    )
    opened = await shop.open("ada", "10.00")
    await shop.pay(opened["url"], promotion_code="QUARTER")
    for _ in range(2):
        await shop.buy("ada", "20.00")
    await shop.deliver(*shop.events())
    # 10.00 less 2.50, and 20.00 twice; the tax of a tenth is none of it.
    assert await shop.balance("ada") == "47.50"
    key = (await shop.api.key("ada", scopes=["usage:read"]))["key"]
    own = await shop.api.as_key(key, "/api/v1/billing/invoices", limit=2)
    assert own.status_code == 200, own.text
    assert own.json()["next_cursor"]
    shown = await every_page(shop.api.operator, f"{ADMIN}/users/ada/invoices", limit=2)
    assert [(one["total"], one["tax"], one["paid"], one["status"]) for one in shown] == [
        ("22.00", "2.00", "22.00", "paid"),
        ("22.00", "2.00", "22.00", "paid"),
        ("8.25", "0.75", "8.25", "paid"),
    ]
    assert own.json()["data"] == shown[:2]
    assert all(one["page_url"] and one["pdf_url"] and one["number"] for one in shown)
    await shop.assert_equal_books()


async def test_invoices_of_one_account_are_hidden_from_others(shop: Shop) -> None:
    await shop.api.user("eve")
    key = (await shop.api.key("eve", scopes=["usage:read"]))["key"]
    await shop.buy("ada", "10.00")
    cursor = (await shop.api.operator.get(f"{ADMIN}/users/ada/invoices")).json()["next_cursor"]
    assert cursor is None
    own = await shop.api.as_key(key, "/api/v1/billing/invoices")
    assert own.json() == {"data": [], "next_cursor": None}
    assert (await shop.api.operator.get(f"{UNKNOWN}/invoices")).status_code == 404


async def test_an_administrator_sets_automatic_top_ups_for_a_user(shop: Shop) -> None:
    path = f"{ADMIN}/users/ada/auto-top-up"
    off = await shop.api.operator.get(path)
    assert (off.status_code, off.json()["detail"]) == (404, "automatic top-ups are off")
    on = await shop.api.operator.put(path, json=TERMS)
    assert (on.status_code, on.json()["threshold"]) == (200, "20.00"), on.text
    wrong = await shop.api.operator.put(path, json={**TERMS, "monthly_ceiling": "9.00"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "amount_not_sold")
    assert (await shop.api.operator.delete(path)).status_code == 204
    assert (await shop.api.operator.delete(path)).status_code == 404
    unknown = await shop.api.operator.put(f"{UNKNOWN}/auto-top-up", json=TERMS)
    assert unknown.status_code == 404


async def test_an_administrator_redeems_a_code_and_opens_the_portal_for_a_user(
    shop: Shop,
) -> None:
    made = await shop.api.operator.post(f"{ADMIN}/coupons", json={"name": "x", "amount": "3.00"})
    body = {"code": made.json()["code"]}
    redeemed = await shop.api.operator.post(f"{ADMIN}/users/ada/coupons", json=body)
    assert redeemed.json() == {"amount": "3.00", "balance": "3.00"}
    again = await shop.api.operator.post(f"{ADMIN}/users/ada/coupons", json=body)
    assert again.json()["code"] == "coupon_redeemed"
    assert (await shop.api.operator.post(f"{UNKNOWN}/coupons", json=body)).status_code == 404
    portal = await shop.api.operator.post(f"{ADMIN}/users/ada/portal")
    page = await shop.client.get(portal.json()["url"])
    assert page.status_code == 200
    assert (await shop.api.operator.post(f"{UNKNOWN}/portal")).status_code == 404


async def test_purchases_are_listed_with_what_became_of_them(shop: Shop) -> None:
    await shop.open("ada", "10.00")
    await shop.buy("ada", "20.00")
    await shop.deliver(*shop.events())
    rows = await every_page(shop.api.operator, f"{ADMIN}/purchases", limit=1)
    assert [(one["amount"], one["state"]) for one in rows] == [("20.00", "paid"), ("10.00", "open")]
    none = await every_page(shop.api.operator, f"{ADMIN}/purchases", user_id="nobody")
    assert none == []
