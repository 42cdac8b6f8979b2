"""Subscriptions, their invoices, products and prices at Stripe."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from meter.money import PICOS_PER_CENT
from meter.payments.purchase import CURRENCY, Purchase
from meter.payments.stripe_facts import CheckoutPage
from meter.payments.stripe_gateway import (
    ACCOUNT_MEMBER,
    PURCHASE_MEMBER,
    StripeGateway,
    existing,
    id_of,
    stripe_errors,
)
from meter.payments.subscriptions.facts import (
    InvoiceLine,
    PriceFacts,
    SubscriptionFacts,
    SubscriptionInvoice,
)
from meter.plans.plan import PlanPrice

if TYPE_CHECKING:
    from meter.payments.purchase import SellingTerms

# Not the member of purchases of credit: a payment of an invoice buys no credit of its own.
SUBSCRIPTION_MEMBER: Final = "tollkeeper_subscription"
PLAN_MEMBER: Final = "tollkeeper_plan"


class StripeSubscriptions:
    """Asks Stripe. Raises StripeUnavailable in an outage, StripeRefused for a refusal."""

    def __init__(self, gateway: StripeGateway) -> None:
        self._gateway = gateway
        self._v1 = gateway.client.v1

    async def create_checkout(
        self,
        purchase: Purchase,
        customer_id: str,
        price_id: str,
        trial_days: int,
        terms: "SellingTerms",
        return_url: str,
    ) -> CheckoutPage:
        """Return the page on which a subscription begins; the same page for the same purchase."""
        ours = {SUBSCRIPTION_MEMBER: str(purchase.id), ACCOUNT_MEMBER: purchase.account_id}
        subscription: dict[str, Any] = {"metadata": ours}
        if trial_days:
            subscription["trial_period_days"] = trial_days
        params: dict[str, Any] = {
            "mode": "subscription",
            "metadata": {PURCHASE_MEMBER: str(purchase.id), **ours},
            "subscription_data": subscription,
            "line_items": [{"quantity": 1, "price": price_id}],
        }
        return await self._gateway.open_page(
            "subscribe", params, purchase, customer_id, terms, return_url
        )

    async def find_subscription(self, subscription_id: str) -> SubscriptionFacts | None:
        """Return a subscription as it is now."""
        with stripe_errors():
            found = await existing(self._v1.subscriptions.retrieve_async(subscription_id))
        return None if found is None else _subscription(found)

    async def find_invoice(self, invoice_id: str) -> SubscriptionInvoice | None:
        """Return an invoice as it is now; None also for an invoice without a subscription."""
        with stripe_errors():
            found = await existing(
                self._v1.invoices.retrieve_async(invoice_id, {"expand": ["payments"]})
            )
        return None if found is None else _invoice(found)

    async def change_price(
        self, subscription: SubscriptionFacts, price_id: str, is_charged_now: bool
    ) -> None:
        """Give a subscription another price: from now, charged at once, or from the next period."""
        params: Any = {
            "items": [{"id": subscription.item_id, "price": price_id}],
            "proration_behavior": "always_invoice" if is_charged_now else "none",
        }
        with stripe_errors():
            await self._v1.subscriptions.update_async(
                subscription.id, params, {"idempotency_key": f"change-{uuid4()}"}
            )

    async def set_cancels(self, subscription_id: str, is_wanted: bool) -> None:
        """Have a subscription end with its period, or go on."""
        with stripe_errors():
            await self._v1.subscriptions.update_async(
                subscription_id, {"cancel_at_period_end": is_wanted}
            )

    async def set_paused(self, subscription_id: str, is_wanted: bool) -> None:
        """Have a subscription charge nothing from its next period on, or charge again."""
        params: Any = {"pause_collection": {"behavior": "void"} if is_wanted else ""}
        with stripe_errors():
            await self._v1.subscriptions.update_async(subscription_id, params)

    async def ensure_product(self, plan_id: str, name: str, may_change: bool) -> str | None:
        """Return what differs at the product of a plan, which is made or renamed; None if nothing.

        Its id is the plan's, so that two at once make one.
        """
        product_id = product_of(plan_id)
        with stripe_errors():
            found = await existing(self._v1.products.retrieve_async(product_id))
            if found is None:
                if may_change:
                    made: Any = {"id": product_id, "name": name, "metadata": {PLAN_MEMBER: plan_id}}
                    await self._v1.products.create_async(made)
                return "the product is missing"
            if found.name == name and found.active:
                return None
            if may_change:
                await self._v1.products.update_async(product_id, {"name": name, "active": True})
        return f"the product is '{found.name}'" if found.active else "the product is not active"

    async def find_price(self, lookup_key: str) -> PriceFacts | None:
        """Return the price with a lookup key; None where there is none."""
        with stripe_errors():
            found = await self._v1.prices.list_async({"lookup_keys": [lookup_key], "limit": 1})
        return _price(found.data[0]) if found.data else None

    async def create_price(self, plan_id: str, price: PlanPrice, lookup_key: str) -> PriceFacts:
        """Make the price of a plan, once for each lookup key at a time."""
        params: Any = {
            "product": product_of(plan_id),
            "currency": CURRENCY,
            "unit_amount": price.amount_picos // PICOS_PER_CENT,
            "recurring": {"interval": price.period.value},
            "lookup_key": lookup_key,
            "transfer_lookup_key": True,
            "tax_behavior": "exclusive",
            "metadata": {PLAN_MEMBER: plan_id},
        }
        with stripe_errors():
            return _price(await self._v1.prices.create_async(params))

    async def activate_price(self, price_id: str) -> None:
        """Let a price be sold again."""
        with stripe_errors():
            await self._v1.prices.update_async(price_id, {"active": True})


def product_of(plan_id: str) -> str:
    """Return the id of a plan's product."""
    return f"tollkeeper_{plan_id}"


def _subscription(found: Any) -> SubscriptionFacts:
    item = found["items"].data[0]
    return SubscriptionFacts(
        id=found.id,
        purchase_id=_purchase_id(found.metadata),
        status=found.status,
        item_id=item.id,
        price_id=item.price.id,
        period_start=_instant(item.current_period_start),
        period_end=_instant(item.current_period_end),
        cancels_at=None if found.cancel_at is None else _instant(found.cancel_at),
        ended_at=None if found.ended_at is None else _instant(found.ended_at),
        latest_invoice_id=id_of(found.latest_invoice),
        is_live=found.livemode,
        is_paused=found.pause_collection is not None,
    )


def _invoice(found: Any) -> SubscriptionInvoice | None:
    parent = found.parent
    if parent is None or parent.subscription_details is None:
        return None
    payments = [] if found.payments is None else found.payments.data
    paid = next((one for one in payments if one.status == "paid"), None)
    transitions = found.status_transitions
    return SubscriptionInvoice(
        id=found.id,
        subscription_id=str(id_of(parent.subscription_details.subscription)),
        is_paid=found.status == "paid",
        is_first=found.billing_reason == "subscription_create",
        currency=found.currency,
        paid_cents=found.amount_paid,
        payment_id=None if paid is None else id_of(paid.payment.payment_intent),
        lines=[
            InvoiceLine(_price_of(line), line.amount, _instant(line.period.end))
            for line in found.lines.data
        ],
        created_at=_instant(found.created),
        paid_at=_instant(transitions.paid_at or found.created),
        page_url=found.hosted_invoice_url,
        is_live=found.livemode,
    )


def _price_of(line: Any) -> str | None:
    pricing = line.pricing
    if pricing is None or pricing.price_details is None:
        return None
    return id_of(pricing.price_details.price)


def _price(found: Any) -> PriceFacts:
    recurring = found.recurring
    is_single = recurring is not None and recurring.interval_count == 1
    return PriceFacts(
        id=found.id,
        product_id=str(id_of(found.product)),
        cents=found.unit_amount,
        currency=found.currency,
        period=recurring.interval if is_single else None,
        is_active=found.active,
    )


def _purchase_id(metadata: Any) -> UUID | None:
    try:
        return UUID(metadata[SUBSCRIPTION_MEMBER])
    except (KeyError, TypeError, ValueError):
        return None


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
