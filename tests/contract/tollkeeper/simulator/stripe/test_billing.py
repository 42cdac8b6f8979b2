"""Subscriptions, invoices, the portal, setup intents and test clocks of the Stripe simulator."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from tests.stripe_simulator import Stripe, stripe_running
from tollkeeper.simulator.stripe.billing.periods import period_after, share_of_period

READY = "test_helpers.test_clock.ready"
DAY = 86_400
HOUR = 3_600
JANUARY_31 = int(datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp())


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running() as running:
        yield running


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]


async def price(shop: Stripe, amount: int = 1_900, interval: str = "month") -> stripe.Price:
    made: stripe.Price = await shop.v1.prices.create_async(
        {
            "product_data": {"name": f"Plan {amount}"},
            "currency": "usd",
            "unit_amount": amount,
            "recurring": {"interval": interval},
            "lookup_key": f"plan-{amount}-{interval}",
        }
    )
    return made


async def clock(shop: Stripe, start: int = JANUARY_31) -> stripe.test_helpers.TestClock:
    made: stripe.test_helpers.TestClock = await shop.v1.test_helpers.test_clocks.create_async(
        {"frozen_time": start}
    )
    return made


async def advance(shop: Stripe, clock_id: str, until: int) -> None:
    clocks = shop.v1.test_helpers.test_clocks
    before = shop.receiver.types().count(READY)
    advancing = await clocks.advance_async(clock_id, {"frozen_time": until})
    assert advancing.status == "advancing"
    await shop.receiver.until(READY, before + 1)
    assert (await clocks.retrieve_async(clock_id)).status == "ready"


async def subscriber(
    shop: Stripe, card: str = "pm_card_visa", clock_id: str | None = None
) -> stripe.Customer:
    params: dict[str, Any] = {"email": "a@example.com"}
    if clock_id:
        params["test_clock"] = clock_id
    customer = await shop.v1.customers.create_async(params)
    method = await shop.v1.payment_methods.attach_async(card, {"customer": customer.id})
    made: stripe.Customer = await shop.v1.customers.update_async(
        customer.id, {"invoice_settings": {"default_payment_method": method.id}}
    )
    return made


async def subscribe(shop: Stripe, customer: str, plan: str, **more: Any) -> stripe.Subscription:
    made: stripe.Subscription = await shop.v1.subscriptions.create_async(
        {"customer": customer, "items": [{"price": plan}], "metadata": {"account": "7"}, **more}
    )
    return made


async def invoices_of(shop: Stripe, subscription: str) -> list[stripe.Invoice]:
    """Return the invoices of a subscription, oldest first."""
    page = await shop.v1.invoices.list_async({"subscription": subscription})
    return list(reversed(page.data))


def end_of(subscription: stripe.Subscription) -> int:
    return int(subscription["items"].data[0].current_period_end)


@pytest.mark.parametrize(
    ("interval", "count", "number", "wanted"),
    [
        ("month", 1, 1, at(2027, 2, 28, 12)),
        ("month", 1, 2, at(2027, 3, 31, 12)),
        ("month", 3, 1, at(2027, 4, 30, 12)),
        ("year", 1, 1, at(2028, 1, 31, 12)),
        ("week", 1, 2, JANUARY_31 + 14 * DAY),
        ("day", 10, 1, JANUARY_31 + 10 * DAY),
    ],
)
def test_a_period_ends_on_its_day(interval: str, count: int, number: int, wanted: int) -> None:
    recurring = {"interval": interval, "interval_count": count}
    assert period_after(JANUARY_31, recurring, number) == wanted


def test_a_share_rounds_half_up() -> None:
    assert share_of_period(1_000, 0, 0, 3) == 1_000
    assert share_of_period(1_000, 1, 0, 3) == 667
    assert share_of_period(1, 1, 0, 2) == 1


async def test_a_subscription_renews_under_a_test_clock(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, plan.id)
    assert subscription.status == "active"
    assert end_of(subscription) == at(2027, 2, 28, 12)
    [first] = await invoices_of(shop, subscription.id)
    assert first.billing_reason == "subscription_create" and first.status == "paid"
    assert first.amount_paid == 1_900
    invoice = await shop.v1.invoices.retrieve_async(
        first.id,
        {
            "expand": [
                "payments.data.payment.payment_intent",
                "parent.subscription_details.subscription",
            ]
        },
    )
    assert invoice.parent.subscription_details.subscription.id == subscription.id
    assert invoice.parent.subscription_details.metadata["account"] == "7"
    intent = invoice.payments.data[0].payment.payment_intent
    assert intent.status == "succeeded" and intent.metadata["account"] == "7"
    line = invoice.lines.data[0]
    assert line.pricing.price_details.price == plan.id
    assert (line.period.start, line.period.end) == (JANUARY_31, end_of(subscription))
    await advance(shop, time.id, at(2027, 2, 28, 12))
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert end_of(subscription) == at(2027, 3, 31, 12)
    draft = (await invoices_of(shop, subscription.id))[1]
    assert draft.status == "draft" and draft.billing_reason == "subscription_cycle"
    await advance(shop, time.id, at(2027, 5, 1))
    paid = await invoices_of(shop, subscription.id)
    assert [one.status for one in paid] == ["paid"] * 4
    assert [one.period_end for one in paid] == [
        JANUARY_31,
        at(2027, 2, 28, 12),
        at(2027, 3, 31, 12),
        at(2027, 4, 30, 12),
    ]
    assert (await shop.control("GET", "books"))["customers"][customer.id]["paid"] == 4 * 1_900
    events = await shop.receiver.until("invoice.paid", 4)
    assert events[0].data.object["id"] == first.id
    await shop.receiver.until("test_helpers.test_clock.ready", 2)


async def test_a_trial_costs_nothing_until_its_end(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, plan.id, trial_period_days=7)
    assert subscription.status == "trialing"
    assert subscription.trial_end == end_of(subscription) == JANUARY_31 + 7 * DAY
    [first] = await invoices_of(shop, subscription.id)
    assert (first.status, first.total) == ("paid", 0)
    await advance(shop, time.id, JANUARY_31 + 5 * DAY)
    await shop.receiver.until("customer.subscription.trial_will_end")
    await advance(shop, time.id, JANUARY_31 + 7 * DAY + HOUR)
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "active"
    assert end_of(subscription) == at(2027, 3, 7, 12)
    assert [one.total for one in await invoices_of(shop, subscription.id)] == [0, 1_900]


@pytest.mark.parametrize(
    ("missing", "status"),
    [("cancel", "canceled"), ("pause", "paused"), ("create_invoice", "past_due")],
)
async def test_a_trial_without_a_card_ends_as_chosen(
    shop: Stripe, missing: str, status: str
) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await shop.v1.customers.create_async({"test_clock": time.id})
    subscription = await subscribe(
        shop,
        customer.id,
        plan.id,
        trial_end=JANUARY_31 + DAY,
        trial_settings={"end_behavior": {"missing_payment_method": missing}},
    )
    await advance(shop, time.id, JANUARY_31 + 2 * DAY)
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == status
    if status == "paused":
        method = await shop.v1.payment_methods.attach_async(
            "pm_card_visa", {"customer": customer.id}
        )
        await shop.v1.subscriptions.update_async(
            subscription.id, {"default_payment_method": method.id}
        )
        subscription = await shop.v1.subscriptions.resume_async(subscription.id)
        assert subscription.status == "active"


async def test_a_failed_renewal_is_tried_again_then_given_up(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, plan.id)
    method = await shop.v1.payment_methods.attach_async(
        "pm_card_chargeCustomerFail", {"customer": customer.id}
    )
    await shop.v1.subscriptions.update_async(subscription.id, {"default_payment_method": method.id})
    await advance(shop, time.id, at(2027, 2, 28, 13))
    subscription = await shop.v1.subscriptions.retrieve_async(
        subscription.id, {"expand": ["latest_invoice"]}
    )
    assert subscription.status == "past_due"
    invoice: Any = subscription.latest_invoice
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert invoice.next_payment_attempt == at(2027, 3, 3, 13)
    with pytest.raises(stripe.CardError):
        await shop.v1.invoices.pay_async(invoice.id)
    await advance(shop, time.id, at(2027, 3, 25))
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "canceled"
    assert subscription.cancellation_details is not None
    assert subscription.cancellation_details.reason == "payment_failed"
    await shop.receiver.until("invoice.payment_failed", 4)
    await shop.receiver.until("customer.subscription.deleted")


async def test_a_new_card_ends_past_due(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, plan.id)
    portal = await shop.v1.billing_portal.sessions.create_async(
        {"customer": customer.id, "return_url": f"{shop.receiver.url}/account"}
    )
    await shop.pay_page(portal.url, action="card", card_number="4000000000000341")
    await advance(shop, time.id, at(2027, 2, 28, 13))
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "past_due"
    _, page = await shop.pay_page(portal.url, action="card", card_number="4000000000000002")
    assert "declined" in page
    await shop.pay_page(portal.url, action="card", card_number="5555555555554444")
    await advance(shop, time.id, at(2027, 3, 3, 13))
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "active"
    assert [one.status for one in await invoices_of(shop, subscription.id)] == ["paid", "paid"]


async def test_a_renewal_may_need_the_customer(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, "pm_card_authenticationRequired", time.id)
    subscription = await subscribe(shop, customer.id, plan.id, trial_period_days=1)
    await advance(shop, time.id, JANUARY_31 + DAY + HOUR)
    await shop.receiver.until("invoice.payment_action_required")
    invoice = (await invoices_of(shop, subscription.id))[1]
    assert invoice.status == "open" and invoice.hosted_invoice_url is not None
    _, page = await shop.pay_page(invoice.hosted_invoice_url, card_number="4242424242424242")
    assert "paid" in page
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "active"


async def test_a_customer_cancels_in_the_portal_and_keeps_the_period(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, plan.id)
    portal = await shop.v1.billing_portal.sessions.create_async({"customer": customer.id})
    for action, is_ending in (("cancel", True), ("keep", False), ("cancel", True)):
        await shop.pay_page(portal.url, action=action, subscription=subscription.id)
        subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
        assert subscription.cancel_at_period_end == is_ending
        assert subscription.status == "active"
    await advance(shop, time.id, at(2027, 3, 1))
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "canceled"
    assert subscription.ended_at == at(2027, 2, 28, 12)
    assert len(await invoices_of(shop, subscription.id)) == 1
    [event] = await shop.receiver.until("customer.subscription.deleted")
    assert event.data.object["id"] == subscription.id
    listed = await shop.v1.subscriptions.list_async({"customer": customer.id})
    assert not listed.data
    listed = await shop.v1.subscriptions.list_async({"customer": customer.id, "status": "all"})
    assert len(listed.data) == 1


async def test_a_dearer_plan_is_prorated_on_the_next_invoice(shop: Stripe) -> None:
    time = await clock(shop, at(2027, 4, 1))
    starter, professional = await price(shop, 3_000), await price(shop, 6_000)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, starter.id)
    await advance(shop, time.id, at(2027, 4, 16))
    item = subscription["items"].data[0].id
    subscription = await shop.v1.subscriptions.update_async(
        subscription.id, {"items": [{"id": item, "price": professional.id}]}
    )
    assert subscription["items"].data[0].price.id == professional.id
    pending = await shop.v1.invoice_items.list_async({"customer": customer.id, "pending": True})
    assert sorted(one.amount for one in pending.data) == [-1_500, 3_000]
    await advance(shop, time.id, at(2027, 5, 1, 1))
    invoice = (await invoices_of(shop, subscription.id))[1]
    assert (invoice.status, invoice.total) == ("paid", 7_500)
    assert sorted(line.amount for line in invoice.lines.data) == [-1_500, 3_000, 6_000]


async def test_a_change_may_be_invoiced_at_once_or_credited(shop: Stripe) -> None:
    time = await clock(shop, at(2027, 4, 1))
    starter, professional = await price(shop, 3_000), await price(shop, 6_000)
    yearly = await price(shop, 50_000, "year")
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, professional.id)
    item = subscription["items"].data[0].id
    await advance(shop, time.id, at(2027, 4, 16))
    await shop.v1.subscriptions.update_async(
        subscription.id,
        {"items": [{"id": item, "price": starter.id}], "proration_behavior": "always_invoice"},
    )
    credit = (await invoices_of(shop, subscription.id))[1]
    assert (credit.status, credit.total, credit.amount_due) == ("paid", -1_500, 0)
    customer = await shop.v1.customers.retrieve_async(customer.id)
    assert customer.balance == -1_500
    subscription = await shop.v1.subscriptions.update_async(
        subscription.id, {"items": [{"id": item, "price": yearly.id}]}
    )
    assert end_of(subscription) == at(2028, 4, 16)
    yearly_invoice = (await invoices_of(shop, subscription.id))[2]
    assert (yearly_invoice.total, yearly_invoice.amount_due) == (48_500, 47_000)
    customer = await shop.v1.customers.retrieve_async(customer.id, {"expand": ["subscriptions"]})
    assert customer.balance == 0
    assert customer.subscriptions is not None
    assert [one.id for one in customer.subscriptions.data] == [subscription.id]


async def test_a_pause_of_collection_voids_what_comes(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, clock_id=time.id)
    subscription = await subscribe(shop, customer.id, plan.id)
    subscription = await shop.v1.subscriptions.update_async(
        subscription.id, {"pause_collection": {"behavior": "void"}}
    )
    assert subscription.pause_collection is not None and subscription.status == "active"
    await advance(shop, time.id, at(2027, 3, 1))
    assert [one.status for one in await invoices_of(shop, subscription.id)] == ["paid", "void"]
    await shop.v1.subscriptions.update_async(subscription.id, {"pause_collection": ""})
    await advance(shop, time.id, at(2027, 4, 1))
    assert [one.status for one in await invoices_of(shop, subscription.id)][2:] == ["paid"]


async def test_a_first_payment_that_fails_leaves_it_incomplete(shop: Stripe) -> None:
    time = await clock(shop)
    plan = await price(shop)
    customer = await subscriber(shop, "pm_card_chargeCustomerFail", time.id)
    subscription = await subscribe(shop, customer.id, plan.id)
    assert subscription.status == "incomplete"
    await advance(shop, time.id, JANUARY_31 + 24 * HOUR)
    subscription = await shop.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.status == "incomplete_expired"
    nobody = await shop.v1.customers.create_async()
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        await subscribe(shop, nobody.id, plan.id)


async def test_a_subscription_is_canceled_at_once(shop: Stripe) -> None:
    plan = await price(shop)
    customer = await subscriber(shop)
    subscription = await subscribe(shop, customer.id, plan.id)
    await shop.v1.invoice_items.create_async(
        {"customer": customer.id, "amount": -100, "currency": "usd", "description": "Sorry"}
    )
    subscription = await shop.v1.subscriptions.cancel_async(
        subscription.id, {"cancellation_details": {"feedback": "unused"}}
    )
    assert subscription.status == "canceled" and subscription.ended_at is not None
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.subscriptions.cancel_async(subscription.id)


async def test_a_customer_subscribes_on_the_hosted_page(shop: Stripe) -> None:
    plan = await price(shop)
    coupon = await shop.v1.coupons.create_async({"percent_off": 50, "duration": "once"})
    session = await shop.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": plan.id, "quantity": 1}],
            "subscription_data": {"metadata": {"account": "7"}},
            "discounts": [{"coupon": coupon.id}],
            "automatic_tax": {"enabled": True},
            "success_url": f"{shop.receiver.url}/paid",
        }
    )
    fields = {"email": "a@example.com", "card_number": "4000000000000002"}
    _, page = await shop.pay_page(session.url, **fields)
    assert "declined" in page
    fields["card_number"] = "4000002500003155"
    url, _ = await shop.pay_page(session.url, **fields)
    url, _ = await shop.pay_page(url, action="complete")
    assert url == f"{shop.receiver.url}/paid"
    session = await shop.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["subscription", "invoice"]}
    )
    assert session.status == "complete" and session.payment_intent is None
    subscription, invoice = session.subscription, session.invoice
    assert subscription.status == "active" and subscription.metadata["account"] == "7"
    assert subscription.default_payment_method is not None
    assert not subscription.discounts
    assert (invoice.status, invoice.total, invoice.billing_reason) == (
        "paid",
        session.amount_total,
        "subscription_create",
    )
    assert session.amount_total == 950 + 95
    [row] = (await shop.control("GET", "books"))["rows"]
    assert (row["amount"], row["tax"], row["invoice"]) == (1_045, 95, invoice.id)
    types = shop.receiver.types
    await shop.receiver.until("checkout.session.completed")
    await shop.receiver.until("invoice.paid")
    assert types().count("payment_intent.succeeded") == 1


async def test_a_trial_on_the_hosted_page_takes_a_card_and_nothing_else(shop: Stripe) -> None:
    plan = await price(shop, 100, "week")
    session = await shop.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": plan.id, "quantity": 1}],
            "subscription_data": {"trial_period_days": 7},
            "success_url": f"{shop.receiver.url}/paid",
        }
    )
    assert session.amount_total == 0
    fields = {"email": "a@example.com", "card_number": "4000000000000002"}
    _, page = await shop.pay_page(session.url, **fields)
    assert "declined" in page
    await shop.pay_page(session.url, **{**fields, "card_number": "4242424242424242"})
    session = await shop.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["subscription"]}
    )
    assert session.payment_status == "no_payment_required"
    assert session.subscription.status == "trialing"
    await shop.control("POST", "clock", seconds=7 * DAY + HOUR)
    subscription = await shop.v1.subscriptions.retrieve_async(session.subscription.id)
    assert subscription.status == "active"
    assert len((await shop.v1.charges.list_async()).data) == 1


async def test_checkout_makes_an_invoice_on_demand(shop: Stripe) -> None:
    session = await shop.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "line_items": [
                {
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 500,
                        "product_data": {"name": "Credit"},
                    },
                    "quantity": 2,
                }
            ],
            "invoice_creation": {"enabled": True},
            "success_url": f"{shop.receiver.url}/paid",
        }
    )
    await shop.pay_page(session.url, card_number="4242424242424242", email="a@example.com")
    session = await shop.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["invoice"]})
    assert session.invoice.status == "paid" and session.invoice.total == 1_000
    payments = await shop.v1.invoice_payments.list_async({"invoice": session.invoice.id})
    assert [one.payment.payment_intent for one in payments.data] == [session.payment_intent]


async def test_a_card_is_saved_without_a_payment(shop: Stripe) -> None:
    customer = await shop.v1.customers.create_async()
    intent = await shop.v1.setup_intents.create_async(
        {
            "customer": customer.id,
            "payment_method": "pm_card_authenticationRequiredOnSetup",
            "confirm": True,
            "return_url": f"{shop.receiver.url}/saved",
        }
    )
    assert intent.status == "requires_action"
    url, _ = await shop.pay_page(intent.next_action.redirect_to_url.url, action="complete")
    assert url.startswith(f"{shop.receiver.url}/saved?setup_intent={intent.id}")
    intent = await shop.v1.setup_intents.retrieve_async(intent.id)
    assert intent.status == "succeeded"
    payment = await shop.v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "usd",
            "customer": customer.id,
            "payment_method": intent.payment_method,
            "payment_method_types": ["card"],
            "off_session": True,
            "confirm": True,
        }
    )
    assert payment.status == "succeeded"
    with pytest.raises(stripe.CardError):
        await shop.v1.setup_intents.create_async(
            {
                "customer": customer.id,
                "payment_method": "pm_card_chargeDeclined",
                "confirm": True,
            }
        )
    listed = await shop.v1.setup_intents.list_async({"customer": customer.id})
    assert [one.status for one in listed.data] == ["requires_payment_method", "succeeded"]
    await shop.v1.setup_intents.cancel_async(listed.data[0].id)
    await shop.receiver.until("setup_intent.setup_failed")


async def test_the_portal_shows_and_returns(shop: Stripe) -> None:
    plan = await price(shop)
    customer = await subscriber(shop)
    await subscribe(shop, customer.id, plan.id)
    portal = await shop.v1.billing_portal.sessions.create_async(
        {"customer": customer.id, "return_url": f"{shop.receiver.url}/account"}
    )
    _, page = await shop.browse(portal.url)
    assert "Cancel subscription" in page and f"{shop.receiver.url}/account" in page
    assert "19.00 USD paid" in page
    [configuration] = (await shop.v1.billing_portal.configurations.list_async()).data
    assert configuration.id == portal.configuration
    await shop.v1.billing_portal.configurations.retrieve_async(configuration.id)


async def test_a_clock_takes_its_customers_along(shop: Stripe) -> None:
    time = await clock(shop)
    customer = await subscriber(shop, clock_id=time.id)
    with pytest.raises(stripe.InvalidRequestError, match="after the clock"):
        await shop.v1.test_helpers.test_clocks.advance_async(time.id, {"frozen_time": JANUARY_31})
    assert len((await shop.v1.test_helpers.test_clocks.list_async()).data) == 1
    await shop.v1.test_helpers.test_clocks.delete_async(time.id)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.customers.retrieve_async(customer.id)
