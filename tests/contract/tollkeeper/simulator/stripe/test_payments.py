"""Payments, refunds and disputes of the Stripe simulator, by Stripe's own library."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.stripe_simulator import Stripe, stripe_running


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running() as running:
        yield running


async def pay(
    shop: Stripe, method: str = "pm_card_visa", amount: int = 1_000, **more: object
) -> stripe.PaymentIntent:
    intent: stripe.PaymentIntent = await shop.v1.payment_intents.create_async(
        {
            "amount": amount,
            "currency": "usd",
            "payment_method": method,
            "payment_method_types": ["card"],
            "confirm": True,
            **more,
        }
    )
    return intent


async def test_a_payment_moves_money_and_tells(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async({"email": "a@example.com"})
    intent = await pay(shop, customer=customer.id, metadata={"purchase": "7"})
    assert intent.status == "succeeded"
    assert intent.amount_received == 1_000
    charge = await shop.v1.charges.retrieve_async(
        intent.latest_charge, {"expand": ["balance_transaction", "customer", "payment_intent"]}
    )
    assert charge.paid and charge.metadata["purchase"] == "7"
    assert charge.customer.email == "a@example.com"
    assert charge.balance_transaction.amount == 1_000
    assert charge.balance_transaction.fee == 59
    assert charge.balance_transaction.net == 941
    assert charge.payment_intent.id == intent.id
    [event] = await shop.receiver.until("payment_intent.succeeded")
    assert event.data.object["id"] == intent.id
    books = await shop.control("GET", "books")
    assert books["customers"][customer.id]["paid"] == 1_000
    assert books["rows"][0]["payment_intent"] == intent.id


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
async def test_a_declined_card_says_why(
    shop: Stripe, method: str, code: str, decline_code: str | None
) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await pay(shop, method)
    assert caught.value.http_status == 402
    assert caught.value.code == code
    error = caught.value.error
    assert error is not None
    assert getattr(error, "decline_code", None) == decline_code
    assert error.payment_intent is not None
    intent = await shop.v1.payment_intents.retrieve_async(error.payment_intent.id)
    assert intent.status == "requires_payment_method"
    assert intent.payment_method is None
    assert intent.last_payment_error.code == code
    charge = await shop.v1.charges.retrieve_async(intent.latest_charge)
    assert charge.status == "failed"
    again = await shop.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa"}
    )
    assert again.status == "succeeded"
    await shop.receiver.until("payment_intent.payment_failed")


async def test_an_off_session_payment_needs_a_card_that_was_set_up(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async()
    with pytest.raises(stripe.CardError) as caught:
        await pay(
            shop,
            "pm_card_authenticationRequired",
            customer=customer.id,
            off_session=True,
            error_on_requires_action=True,
        )
    assert caught.value.code == "authentication_required"
    intents = await shop.v1.payment_intents.list_async({"customer": customer.id})
    assert [one.status for one in intents.data] == ["requires_payment_method"]


async def test_an_on_session_payment_waits_for_the_cards_holder(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async()
    intent = await pay(
        shop,
        "pm_card_authenticationRequiredOnSetup",
        customer=customer.id,
        setup_future_usage="off_session",
        return_url=f"{shop.url}/back",
    )
    assert intent.status == "requires_action"
    assert intent.next_action is not None and intent.next_action.redirect_to_url is not None
    page = str(intent.next_action.redirect_to_url.url)
    await shop.pay_page(page, action="complete")
    intent = await shop.v1.payment_intents.retrieve_async(intent.id)
    assert intent.status == "succeeded"
    later = await pay(shop, str(intent.payment_method), customer=customer.id, off_session=True)
    assert later.status == "succeeded"
    await shop.receiver.until("payment_intent.requires_action")


async def test_error_on_requires_action_refuses_instead_of_waiting(shop: Stripe) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await pay(shop, "pm_card_authenticationRequired", error_on_requires_action=True)
    assert caught.value.code == "authentication_required"


async def test_automatic_methods_need_a_return_url_or_no_redirects(shop: Stripe) -> None:
    params = {
        "amount": 500,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "confirm": True,
    }
    with pytest.raises(stripe.InvalidRequestError, match="return_url"):
        await shop.v1.payment_intents.create_async(params)
    automatic = {"enabled": True, "allow_redirects": "never"}
    intent = await shop.v1.payment_intents.create_async(
        {**params, "automatic_payment_methods": automatic}
    )
    assert intent.status == "succeeded"


async def test_a_payment_is_refunded_in_parts_but_not_twice(shop: Stripe) -> None:
    intent = await pay(shop)
    part = await shop.v1.refunds.create_async(
        {"payment_intent": intent.id, "amount": 300, "metadata": {"why": "half"}}
    )
    assert part.status == "succeeded" and part.amount == 300
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await shop.v1.refunds.create_async({"payment_intent": intent.id, "amount": 701})
    await shop.v1.refunds.create_async({"charge": intent.latest_charge})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.refunds.create_async({"payment_intent": intent.id})
    assert caught.value.code == "charge_already_refunded"
    charge = await shop.v1.charges.retrieve_async(intent.latest_charge, {"expand": ["refunds"]})
    assert charge.refunded and charge.amount_refunded == 1_000
    assert [one.amount for one in charge.refunds.data] == [700, 300]
    moves = await shop.v1.balance_transactions.list_async({"type": "refund"})
    assert [one.amount for one in moves.data] == [-700, -300]
    await shop.receiver.until("charge.refunded", 2)
    await shop.receiver.until("refund.created", 2)


async def test_a_refund_may_fail_later(shop: Stripe) -> None:
    intent = await pay(shop, "pm_card_refundFail")
    refund = await shop.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "succeeded"
    await shop.receiver.until("refund.failed")
    refund = await shop.v1.refunds.retrieve_async(refund.id)
    assert refund.status == "failed"
    assert refund.failure_reason == "expired_or_canceled_card"
    charge = await shop.v1.charges.retrieve_async(intent.latest_charge)
    assert not charge.refunded and charge.amount_refunded == 0
    sums = (await shop.control("GET", "books"))["customers"][""]
    assert sums["refunded"] == sums["refund_failed"] == 1_000


async def test_a_refund_may_succeed_later(shop: Stripe) -> None:
    intent = await pay(shop, "pm_card_pendingRefund")
    refund = await shop.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "pending"
    await shop.receiver.until("refund.updated")
    refund = await shop.v1.refunds.retrieve_async(refund.id)
    assert refund.status == "succeeded"


async def test_a_dispute_takes_the_money_and_evidence_gives_it_back(shop: Stripe) -> None:
    intent = await pay(shop, "pm_card_createDispute")
    [event] = await shop.receiver.until("charge.dispute.funds_withdrawn")
    dispute = await shop.v1.disputes.retrieve_async(event.data.object["id"])
    assert dispute.status == "needs_response" and dispute.amount == 1_000
    assert dispute.payment_intent == intent.id
    assert [one.net for one in dispute.balance_transactions] == [-2_500]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.refunds.create_async({"payment_intent": intent.id})
    assert caught.value.code == "charge_disputed"
    await shop.v1.disputes.update_async(
        dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    )
    await shop.receiver.until("charge.dispute.funds_reinstated")
    [closed] = await shop.receiver.until("charge.dispute.closed")
    assert closed.data.object["status"] == "won"
    sums = (await shop.control("GET", "books"))["customers"][""]
    assert sums["dispute_withdrawn"] == sums["dispute_reinstated"] == 1_000


async def test_a_dispute_that_is_accepted_is_lost(shop: Stripe) -> None:
    intent = await pay(shop)
    opened = await shop.control("POST", "disputes", charge=intent.latest_charge, amount=400)
    dispute = await shop.v1.disputes.close_async(opened["id"])
    assert dispute.status == "lost"
    await shop.receiver.until("charge.dispute.closed")
    assert "charge.dispute.funds_reinstated" not in shop.receiver.types()


async def test_an_inquiry_takes_no_money(shop: Stripe) -> None:
    intent = await pay(shop, "pm_card_createDisputeInquiry")
    [event] = await shop.receiver.until("charge.dispute.created")
    assert event.data.object["status"] == "warning_needs_response"
    refund = await shop.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "succeeded"
    assert "charge.dispute.funds_withdrawn" not in shop.receiver.types()


async def test_a_saved_card_belongs_to_its_customer(shop: Stripe) -> None:
    ann = await shop.v1.customers.create_async()
    ben = await shop.v1.customers.create_async()
    method = await shop.v1.payment_methods.attach_async("pm_card_visa", {"customer": ann.id})
    await shop.v1.customers.update_async(
        ann.id, {"invoice_settings": {"default_payment_method": method.id}}
    )
    with pytest.raises(stripe.InvalidRequestError, match="does not belong"):
        await pay(shop, method.id, customer=ben.id)
    with pytest.raises(stripe.InvalidRequestError, match="attached to a customer"):
        await pay(shop, method.id)
    saved = await shop.v1.customers.payment_methods.list_async(ann.id)
    assert [one.id for one in saved.data] == [method.id]
    await shop.v1.payment_methods.detach_async(method.id)
    ann = await shop.v1.customers.retrieve_async(
        ann.id, {"expand": ["invoice_settings.default_payment_method"]}
    )
    assert ann.invoice_settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        await pay(shop, method.id, customer=ann.id)
    with pytest.raises(stripe.CardError):
        await shop.v1.payment_methods.attach_async("pm_card_chargeDeclined", {"customer": ben.id})


async def test_an_intent_is_canceled_once(shop: Stripe) -> None:
    intent = await shop.v1.payment_intents.create_async({"amount": 100, "currency": "usd"})
    assert intent.status == "requires_payment_method"
    await shop.v1.payment_intents.update_async(intent.id, {"amount": 200, "metadata": {"a": "b"}})
    canceled = await shop.v1.payment_intents.cancel_async(intent.id)
    assert canceled.status == "canceled" and canceled.amount == 200
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.payment_intents.confirm_async(
            intent.id, {"payment_method": "pm_card_visa", "return_url": "http://x.test"}
        )
    assert caught.value.code == "payment_intent_unexpected_state"


@pytest.mark.parametrize(("method", "is_there"), [("automatic", True), ("automatic_async", False)])
async def test_the_balance_may_follow_a_moment_later(
    shop: Stripe, method: str, is_there: bool
) -> None:
    intent: Any = await pay(
        shop, capture_method=method, expand=["latest_charge.balance_transaction"]
    )
    assert (intent.latest_charge.balance_transaction is not None) == is_there
    charge = await shop.v1.charges.retrieve_async(intent.latest_charge.id)
    assert charge.balance_transaction is not None
    await shop.receiver.until("charge.succeeded")
    if not is_there:
        await shop.receiver.until("charge.updated")


async def test_money_becomes_available_after_two_days(shop: Stripe) -> None:
    await pay(shop)
    [before] = (await shop.v1.balance_transactions.list_async()).data
    assert before.status == "pending"
    await shop.control("POST", "clock", seconds=2 * 24 * 3600)
    after = await shop.v1.balance_transactions.retrieve_async(before.id)
    assert after.status == "available"
