"""Brings subscriptions up to date with Stripe, whoever asks: webhook, return page or sweep.

An invoice that was paid gives the credit of its period once, and its terms. The subscription itself
moves no money: its state says when the terms end.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from meter.money import PICOS_PER_CENT, format_usd
from meter.payments.metrics import PaymentMetrics
from meter.payments.purchase import CURRENCY, Purchase, PurchaseKind, PurchaseState
from meter.payments.purchase_store import PurchaseStore
from meter.payments.stripe_facts import StripeRefused
from meter.payments.subscriptions.facts import (
    InvoiceLine,
    SubscriptionFacts,
    SubscriptionInvoice,
)
from meter.payments.subscriptions.subscription_store import PaidPeriod, SubscriptionStore
from meter.plans.plan import PlanVersion

if TYPE_CHECKING:
    from meter.payments.subscriptions.stripe_subscriptions import StripeSubscriptions

# After its period, an account keeps its terms for so long, while Stripe tries to charge the card.
GRACE: Final = timedelta(days=7)
OVERDUE_AT_ONCE: Final = 100

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FollowedInvoice:
    """The outcome of following a subscription of ours: the payment of a paid invoice."""

    payment_id: str | None


class SubscriptionFollower:
    """Follows subscriptions and invoices.

    Raises StripeUnavailable and StoreUnavailable in outages, and StripeRefused for an invoice that
    contradicts what we sell, which needs an administrator.
    """

    def __init__(
        self,
        stripe: "StripeSubscriptions",
        store: SubscriptionStore,
        purchases: PurchaseStore,
        metrics: PaymentMetrics,
        is_live: bool,
    ) -> None:
        self._stripe = stripe
        self._store = store
        self._purchases = purchases
        self._metrics = metrics
        self._is_live = is_live

    async def follow_subscription(self, subscription_id: str) -> FollowedInvoice | None:
        """Store a subscription as it is now, with its latest invoice; None where it is not ours."""
        found = await self._save(subscription_id)
        if found is None:
            return None
        purchase, facts, asked_at = found
        payment_id = None
        if facts.latest_invoice_id is not None:
            invoice = await self._stripe.find_invoice(facts.latest_invoice_id)
            if invoice is not None:
                payment_id = await self._pay(purchase, facts, invoice)
        await self._drop_terms(facts.id, purchase.account_id, asked_at)
        return FollowedInvoice(payment_id)

    async def follow_invoice(self, invoice_id: str) -> FollowedInvoice | None:
        """Post what follows from an invoice, if it is paid; None where it is not ours."""
        invoice = await self._stripe.find_invoice(invoice_id)
        if invoice is None or invoice.is_live != self._is_live:
            return None
        found = await self._save(invoice.subscription_id)
        if found is None:
            return None
        purchase, facts, asked_at = found
        payment_id = await self._pay(purchase, facts, invoice)
        await self._drop_terms(facts.id, purchase.account_id, asked_at)
        return FollowedInvoice(payment_id)

    async def follow_overdue(self, now: datetime) -> int:
        """Look at subscriptions whose paid period is over; return how many accounts fell back.

        Either the news of the next period was lost, or nobody paid for it.
        """
        dropped = 0
        for subscription_id, account_id in await self._store.list_overdue(
            self._is_live, now, OVERDUE_AT_ONCE
        ):
            try:
                await self.follow_subscription(subscription_id)
            except StripeRefused as error:
                _log.error("subscription_unclear", id=subscription_id, reason=str(error))
            dropped += await self._drop_terms(subscription_id, account_id, now)
        return dropped

    async def _save(
        self, subscription_id: str
    ) -> tuple[Purchase, SubscriptionFacts, datetime] | None:
        """Store a subscription as it is now; None where it is not ours."""
        asked_at = await self._store.now()
        facts = await self._stripe.find_subscription(subscription_id)
        if facts is None or facts.purchase_id is None or facts.is_live != self._is_live:
            return None
        purchase = await self._purchases.find(facts.purchase_id)
        is_ours = (
            purchase is not None
            and purchase.kind is PurchaseKind.SUBSCRIPTION
            and purchase.is_live == facts.is_live
        )
        if purchase is None or not is_ours:
            return None
        await self._store.save(purchase, facts, asked_at)
        if facts.status not in ("incomplete", "incomplete_expired"):
            await self._purchases.end(purchase.id, PurchaseState.PAID)
        return purchase, facts, asked_at

    async def _pay(
        self, purchase: Purchase, facts: SubscriptionFacts, invoice: SubscriptionInvoice
    ) -> str | None:
        """Post the credit of a paid invoice once; return its payment, whoever posted it.

        Its refunds and disputes are followed each time: the call that posted it may have ended
        before it did that.
        """
        if not invoice.is_paid:
            if facts.status in ("past_due", "unpaid"):
                _log.warning(
                    "subscription_past_due", account_id=purchase.account_id, invoice=invoice.id
                )
            return None
        # Before the terms are looked up: these may have changed since the invoice was recorded.
        if await self._store.is_recorded(invoice.id):
            return invoice.payment_id
        if invoice.currency != CURRENCY:
            raise StripeRefused(
                f"{invoice.id} is in {invoice.currency}, and plans are sold in {CURRENCY}: "
                "refund it at Stripe"
            )
        period = await self._period_of(invoice)
        if period is None:
            return None
        if not await self._store.record(purchase, invoice, period):
            return invoice.payment_id
        self._metrics.credited_picos.inc(period.credited_picos)
        _log.info(
            "plan_period_paid",
            invoice=invoice.id,
            account_id=purchase.account_id,
            plan=period.version.id,
            version=period.version.version,
            amount=format_usd(period.credited_picos),
        )
        return invoice.payment_id

    async def _period_of(self, invoice: SubscriptionInvoice) -> PaidPeriod | None:
        """Return what an invoice gives; None where it charges for no period."""
        charged: list[tuple[InvoiceLine, PlanVersion]] = []
        for line in invoice.lines:
            version = None
            if line.price_id is not None:
                version = await self._store.find_version(line.price_id, invoice.is_live)
            if version is None:
                self._metrics.unknown_prices.inc()
                raise StripeRefused(
                    f"{invoice.id} charges {line.price_id}, which is no price of a plan here: "
                    "nothing is credited. Run `tollkeeper plans sync`, or refund it at Stripe"
                )
            charged.append((line, version))
        # What is charged last is what the account has from now on. Unused time is given back.
        lasting = [one for one in charged if one[0].cents >= 0]
        if not lasting:
            return None
        line, version = max(lasting, key=lambda one: (one[0].ends_at, one[0].cents))
        picos = max(0, sum(_included(one.cents, terms) for one, terms in charged))
        if invoice.is_first and not any(one.cents for one in invoice.lines):
            assert version.price is not None
            picos = version.price.trial_picos
        return PaidPeriod(version, picos, line.ends_at)

    async def _drop_terms(self, subscription_id: str, account_id: str, now: datetime) -> int:
        plan_id = await self._store.drop_terms(subscription_id, account_id, now, GRACE)
        if plan_id is None:
            return 0
        _log.info("plan_period_over", account_id=account_id, plan=plan_id, id=subscription_id)
        return 1


def _included(cents: int, version: PlanVersion) -> int:
    """Return the credit that belongs to an amount: all that is included for the whole price."""
    price = version.price
    assert price is not None
    return price.included_picos * cents * PICOS_PER_CENT // price.amount_picos
