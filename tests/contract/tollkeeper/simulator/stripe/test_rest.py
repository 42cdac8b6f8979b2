"""The operations of the Stripe simulator that no other test calls: look-ups and lists."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.stripe_simulator import Stripe, stripe_running


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running() as running:
        yield running


async def test_products_and_prices_are_looked_up_and_deleted(shop: Stripe) -> None:
    product = await shop.v1.products.create_async({"name": "Credit", "images": ["http://x.test/"]})
    price = await shop.v1.prices.create_async(
        {"product": product.id, "currency": "usd", "unit_amount": 100}
    )
    assert (await shop.v1.prices.retrieve_async(price.id)).unit_amount == 100
    assert (await shop.v1.products.retrieve_async(product.id)).name == "Credit"
    bare = await shop.v1.products.create_async({"id": "bare", "name": "Bare"})
    listed = await shop.v1.products.list_async({"ids": ["bare"], "active": True})
    assert [one.id for one in listed.data] == [bare.id]
    assert (await shop.v1.products.delete_async("bare")).deleted
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.products.retrieve_async("bare")


async def test_coupons_and_codes_are_changed_and_deleted(shop: Stripe) -> None:
    coupon = await shop.v1.coupons.create_async({"id": "HALF", "percent_off": 50})
    code = await shop.v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}}
    )
    await shop.v1.coupons.update_async("HALF", {"name": "Half"})
    assert [one.name for one in (await shop.v1.coupons.list_async()).data] == ["Half"]
    await shop.v1.promotion_codes.update_async(code.id, {"metadata": {"a": "b"}})
    code = await shop.v1.promotion_codes.retrieve_async(code.id, {"expand": ["promotion.coupon"]})
    assert code.promotion.coupon.percent_off == 50
    assert (await shop.v1.coupons.delete_async("HALF")).deleted
    code = await shop.v1.promotion_codes.retrieve_async(code.id)
    assert not code.active


async def test_payments_are_looked_up_and_annotated(shop: Stripe) -> None:
    method = await shop.v1.payment_methods.create_async(
        {"type": "card", "card": {"token": "tok_visa"}, "billing_details": {"name": "Ann"}}
    )
    assert (await shop.v1.payment_methods.retrieve_async(method.id)).billing_details.name == "Ann"
    intent = await shop.v1.payment_intents.create_async(
        {
            "amount": 900,
            "currency": "usd",
            "payment_method": method.id,
            "payment_method_types": ["card"],
            "confirm": True,
        }
    )
    charge = await shop.v1.charges.update_async(intent.latest_charge, {"metadata": {"a": "b"}})
    assert charge.metadata["a"] == "b"
    refund = await shop.v1.refunds.create_async({"charge": charge.id, "amount": 100})
    await shop.v1.refunds.update_async(refund.id, {"metadata": {"why": "late"}})
    [found] = (await shop.v1.refunds.list_async({"payment_intent": intent.id})).data
    assert found.metadata["why"] == "late"
    await shop.control("POST", "disputes", charge=charge.id)
    [dispute] = (await shop.v1.disputes.list_async({"charge": charge.id})).data
    assert dispute.amount == 800
    raw = {"type": "card", "card": {"number": "4242424242424242"}}
    with pytest.raises(stripe.CardError, match="unsafe"):
        await shop.v1.payment_methods.create_async(raw)
    assert not (await shop.v1.payment_methods.list_async({"customer": "cus_none"})).data


async def test_a_session_lists_its_lines_and_takes_metadata(shop: Stripe) -> None:
    price = {"currency": "usd", "unit_amount": 700, "product_data": {"name": "Credit"}}
    session = await shop.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "line_items": [{"price_data": price, "quantity": 3}],
            "success_url": f"{shop.receiver.url}/paid",
        }
    )
    lines = await shop.v1.checkout.sessions.line_items.list_async(session.id)
    assert [(one.quantity, one.amount_total) for one in lines.data] == [(3, 2_100)]
    session = await shop.v1.checkout.sessions.update_async(session.id, {"metadata": {"a": "b"}})
    assert session.metadata["a"] == "b"
    receipt = await shop.pay_page(session.url, card_number="4242424242424242", email="a@b.test")
    assert receipt[0].endswith("/paid")
    [charge] = (await shop.v1.charges.list_async()).data
    _, page = await shop.browse(charge.receipt_url)
    assert "21.00 USD" in page


async def test_invoices_are_finalized_paid_and_voided_by_hand(shop: Stripe) -> None:
    price = await shop.v1.prices.create_async(
        {
            "product_data": {"name": "Plan"},
            "currency": "usd",
            "unit_amount": 1_000,
            "recurring": {"interval": "week"},
        }
    )
    customer = await shop.v1.customers.create_async()
    params: dict[str, Any] = {
        "customer": customer.id,
        "items": [{"price": price.id, "quantity": 2}],
        "payment_behavior": "default_incomplete",
    }
    subscription = await shop.v1.subscriptions.create_async(params)
    assert subscription.status == "incomplete"
    [item] = (await shop.v1.subscription_items.list_async({"subscription": subscription.id})).data
    assert (await shop.v1.subscription_items.retrieve_async(item.id)).quantity == 2
    invoice = await shop.v1.invoices.pay_async(
        subscription.latest_invoice, {"payment_method": "pm_card_visa"}
    )
    assert (invoice.status, invoice.amount_paid) == ("paid", 2_000)
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "active"
    [payment] = (await shop.v1.invoice_payments.list_async({"invoice": invoice.id})).data
    payment = await shop.v1.invoice_payments.retrieve_async(payment.id)
    assert payment.status == "paid"
    held = await shop.v1.subscriptions.create_async(params)
    voided = await shop.v1.invoices.void_invoice_async(held.latest_invoice)
    assert voided.status == "void"
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.invoices.pay_async(voided.id, {"payment_method": "pm_card_visa"})
    method = await shop.v1.payment_methods.list_async({"customer": customer.id})
    await shop.v1.subscriptions.update_async(
        subscription.id, {"default_payment_method": method.data[0].id}
    )
    await shop.control("POST", "clock", seconds=7 * 24 * 3600)
    [draft] = (await shop.v1.invoices.list_async({"status": "draft"})).data
    opened = await shop.v1.invoices.finalize_invoice_async(draft.id)
    assert opened.status == "open" and opened.number is not None


async def test_invoice_items_wait_and_are_deleted(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async()
    item = await shop.v1.invoice_items.create_async(
        {"customer": customer.id, "amount": 500, "currency": "usd"}
    )
    assert (await shop.v1.invoice_items.retrieve_async(item.id)).amount == 500
    assert (await shop.v1.invoice_items.delete_async(item.id)).deleted


async def test_a_setup_is_confirmed_after_it_was_made(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async()
    intent = await shop.v1.setup_intents.create_async({"customer": customer.id})
    assert intent.status == "requires_payment_method"
    intent = await shop.v1.setup_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa"}
    )
    assert intent.status == "succeeded"
    saved = await shop.v1.payment_methods.list_async({"customer": customer.id, "type": "card"})
    assert [one.id for one in saved.data] == [intent.payment_method]
