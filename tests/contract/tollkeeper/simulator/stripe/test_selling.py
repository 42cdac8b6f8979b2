"""Products, prices, coupons and Checkout of the Stripe simulator, page included."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.stripe_simulator import Stripe, stripe_running

CREDIT = {
    "currency": "usd",
    "unit_amount": 2_500,
    "product_data": {"name": "Credit"},
}


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running() as running:
        yield running


async def start(shop: Stripe, **more: Any) -> stripe.checkout.Session:
    session: stripe.checkout.Session = await shop.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "line_items": [{"price_data": CREDIT, "quantity": 1}],
            "success_url": f"{shop.receiver.url}/paid?session={{CHECKOUT_SESSION_ID}}",
            "cancel_url": f"{shop.receiver.url}/cancelled",
            **more,
        }
    )
    return session


async def test_a_price_is_found_by_its_lookup_key(shop: Stripe) -> None:
    product = await shop.v1.products.create_async({"name": "Starter", "metadata": {"plan": "s"}})
    monthly = {"interval": "month"}
    params = {
        "product": product.id,
        "currency": "usd",
        "unit_amount": 1_900,
        "recurring": monthly,
        "lookup_key": "starter",
    }
    first = await shop.v1.prices.create_async(params)
    with pytest.raises(stripe.InvalidRequestError, match="already uses"):
        await shop.v1.prices.create_async(params)
    second = await shop.v1.prices.create_async(
        {**params, "unit_amount": 2_000, "transfer_lookup_key": True}
    )
    found = await shop.v1.prices.list_async(
        {"lookup_keys": ["starter", "none"], "expand": ["data.product"]}
    )
    assert [one.id for one in found.data] == [second.id]
    assert found.data[0].product.metadata["plan"] == "s"
    old = await shop.v1.prices.update_async(first.id, {"active": False})
    assert old.lookup_key is None and not old.active
    active = await shop.v1.prices.list_async({"product": product.id, "active": True})
    assert [one.id for one in active.data] == [second.id]
    product = await shop.v1.products.update_async(product.id, {"name": "Starter plan"})
    assert product.name == "Starter plan"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be deleted"):
        await shop.v1.products.delete_async(product.id)


async def test_a_customer_pays_on_the_hosted_page(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async({"email": "a@example.com"})
    session = await start(
        shop,
        customer=customer.id,
        client_reference_id="purchase-7",
        metadata={"purchase": "7"},
        payment_intent_data={
            "metadata": {"purchase": "7"},
            "setup_future_usage": "off_session",
        },
    )
    assert session.status == "open" and session.payment_intent is None
    assert session.amount_total == 2_500
    url, page = await shop.browse(str(session.url))
    assert "Pay 25.00 USD" in page and "Email" not in page
    url, _ = await shop.pay_page(url, card_number="4242424242424242")
    assert url == f"{shop.receiver.url}/paid?session={session.id}"
    session = await shop.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["line_items", "payment_intent.payment_method"]}
    )
    assert session.status == "complete" and session.payment_status == "paid"
    assert session.url is None
    intent: Any = session.payment_intent
    assert intent.metadata["purchase"] == "7"
    assert intent.payment_method.customer == customer.id
    assert session.line_items is not None
    assert [one.amount_total for one in session.line_items.data] == [2_500]
    [event] = await shop.receiver.until("checkout.session.completed")
    assert event.data.object["client_reference_id"] == "purchase-7"
    found = await shop.v1.checkout.sessions.list_async({"payment_intent": intent.id})
    assert [one.id for one in found.data] == [session.id]


async def test_a_declined_card_leaves_the_page_open(shop: Stripe) -> None:
    session = await start(shop, customer_email="a@example.com")
    url, page = await shop.pay_page(str(session.url), card_number="4000000000009995")
    assert "insufficient funds" in page and url == session.url
    session = await shop.v1.checkout.sessions.retrieve_async(session.id)
    assert session.status == "open" and session.payment_status == "unpaid"
    intent = session.payment_intent
    await shop.pay_page(url, card_number="4242424242424242")
    session = await shop.v1.checkout.sessions.retrieve_async(session.id)
    assert session.payment_status == "paid" and session.payment_intent == intent
    assert session.customer is None
    assert session.customer_details is not None
    assert session.customer_details.email == "a@example.com"
    await shop.receiver.until("payment_intent.payment_failed")


async def test_the_bank_may_ask_the_customer(shop: Stripe) -> None:
    session = await start(shop, customer_creation="always")
    url, page = await shop.pay_page(
        str(session.url), card_number="4000002760003184", email="a@example.com", name="Ann"
    )
    assert "Confirm the payment" in page
    url, page = await shop.pay_page(url, action="fail")
    assert "failed authentication" in page
    url, _ = await shop.pay_page(
        str(session.url), card_number="4000002760003184", email="a@example.com"
    )
    url, _ = await shop.pay_page(url, action="complete")
    assert url.startswith(f"{shop.receiver.url}/paid")
    session = await shop.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["customer"]})
    customer: Any = session.customer
    assert (customer.email, customer.name) == ("a@example.com", "Ann")


async def test_tax_is_added_and_told_apart(shop: Stripe) -> None:
    session = await start(shop, automatic_tax={"enabled": True})
    assert session.amount_total == 2_500
    await shop.pay_page(str(session.url), card_number="4242424242424242", email="a@example.com")
    session = await shop.v1.checkout.sessions.retrieve_async(session.id)
    assert session.amount_subtotal == 2_500 and session.amount_total == 2_750
    assert session.total_details is not None and session.total_details.amount_tax == 250
    [row] = (await shop.control("GET", "books"))["rows"]
    assert (row["amount"], row["tax"]) == (2_750, 250)


async def test_a_promotion_code_takes_off_until_it_is_used_up(shop: Stripe) -> None:
    coupon = await shop.v1.coupons.create_async({"percent_off": 12.5, "duration": "once"})
    code = await shop.v1.promotion_codes.create_async(
        {
            "promotion": {"type": "coupon", "coupon": coupon.id},
            "code": "WELCOME",
            "max_redemptions": 1,
        }
    )
    session = await start(shop, allow_promotion_codes=True)
    fields = {"card_number": "4242424242424242", "email": "a@example.com"}
    _, page = await shop.pay_page(str(session.url), **fields, promotion_code="NONE")
    assert "This code is invalid" in page
    await shop.pay_page(str(session.url), **fields, promotion_code="welcome")
    session = await shop.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["discounts.promotion_code"]}
    )
    # 312.5 cents are 313.
    assert session.amount_total == 2_187
    assert session.discounts is not None
    used: Any = session.discounts[0].promotion_code
    assert used.id == code.id and used.times_redeemed == 1 and not used.active
    with pytest.raises(stripe.InvalidRequestError, match="invalid"):
        await start(shop, discounts=[{"promotion_code": code.id}])
    listed = await shop.v1.promotion_codes.list_async({"code": "WELCOME", "active": True})
    assert not listed.data


async def test_a_coupon_of_all_leaves_nothing_to_pay(shop: Stripe) -> None:
    coupon = await shop.v1.coupons.create_async(
        {"amount_off": 9_000, "currency": "usd", "duration": "once"}
    )
    session = await start(shop, discounts=[{"coupon": coupon.id}])
    assert session.amount_total == 0
    await shop.pay_page(str(session.url), card_number="4242424242424242", email="a@example.com")
    session = await shop.v1.checkout.sessions.retrieve_async(session.id)
    assert session.payment_status == "no_payment_required" and session.payment_intent is None
    assert session.customer is not None
    coupon = await shop.v1.coupons.retrieve_async(coupon.id)
    assert coupon.times_redeemed == 1


async def test_a_session_expires_by_call_or_by_time(shop: Stripe) -> None:
    ended = await start(shop)
    await shop.v1.checkout.sessions.expire_async(ended.id)
    with pytest.raises(stripe.InvalidRequestError, match="can be expired"):
        await shop.v1.checkout.sessions.expire_async(ended.id)
    late = await start(shop)
    await shop.control("POST", "clock", seconds=24 * 3600)
    late = await shop.v1.checkout.sessions.retrieve_async(late.id)
    assert late.status == "expired" and late.url is None
    _, page = await shop.browse(f"{shop.url}/c/pay/{late.id}")
    assert "has expired" in page
    await shop.receiver.until("checkout.session.expired", 2)


async def test_texts_of_a_shop_are_escaped_on_the_page(shop: Stripe) -> None:
    price = {**CREDIT, "product_data": {"name": "<script>alert(1)</script>"}}
    session = await start(shop, line_items=[{"price_data": price, "quantity": 1}])
    _, page = await shop.browse(str(session.url))
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("account", "end", "paid"),
    [("000123456789", "succeeded", "paid"), ("000222222227", "failed", "unpaid")],
)
async def test_a_debit_ends_after_checkout(shop: Stripe, account: str, end: str, paid: str) -> None:
    session = await start(
        shop, customer_email="a@b.test", payment_method_types=["card", "us_bank_account"]
    )
    url, _ = await shop.pay_page(str(session.url), card_number=account)
    assert url.startswith(f"{shop.receiver.url}/paid")
    [completed] = await shop.receiver.until("checkout.session.completed")
    assert completed.data.object["payment_status"] == "unpaid"
    [later] = await shop.receiver.until(f"checkout.session.async_payment_{end}")
    assert later.data.object["payment_status"] == paid
    session = await shop.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["payment_intent.latest_charge.balance_transaction"]}
    )
    assert (session.status, session.payment_status) == ("complete", paid)
    intent: Any = session.payment_intent
    assert intent.latest_charge.status == end
    assert len((await shop.control("GET", "books"))["rows"]) == (1 if paid == "paid" else 0)


async def test_a_session_for_cards_takes_no_debit(shop: Stripe) -> None:
    session = await start(shop)
    _, page = await shop.pay_page(str(session.url), card_number="000123456789", email="a@b.test")
    assert "takes cards only" in page
