"""Turns payments into credit, once each, whoever asks: webhook, return page or sweep.

Every way leads to the same question, "what is this object at Stripe now?", and posts what follows
from the answer. Each posting is keyed by the id of the object that caused it, and objects only
move forward, so a stale answer leads to a part of what a fresh one leads to: order, repetition and
concurrency do not matter.
"""

from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from meter.money import PICOS_PER_CENT, format_usd
from meter.payments.metrics import PaymentMetrics
from meter.payments.payment_store import PaymentStore, ReversalKind
from meter.payments.purchase import (
    CURRENCY,
    Payment,
    Purchase,
    PurchaseKind,
    PurchaseState,
)
from meter.payments.purchase_store import PurchaseStore
from meter.payments.stripe_facts import (
    CheckoutSession,
    PaymentFacts,
    PaymentState,
    SessionState,
    StripeRefused,
)
from meter.payments.subscriptions.following import FollowedInvoice, SubscriptionFollower

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway

_log = structlog.get_logger(__name__)


class Followed(StrEnum):
    """The outcomes of following an object: it is up to date here, or it is not ours."""

    DONE = "done"
    FOREIGN = "foreign"


class Fulfilment:
    """Brings purchases and payments up to date with Stripe.

    Raises StripeUnavailable and StoreUnavailable in outages, and StripeRefused for an object that
    contradicts what we sell, which needs an administrator.
    """

    def __init__(
        self,
        gateway: "StripeGateway",
        purchases: PurchaseStore,
        payments: PaymentStore,
        metrics: PaymentMetrics,
        subscriptions: SubscriptionFollower,
    ) -> None:
        self._gateway = gateway
        self._purchases = purchases
        self._payments = payments
        self._metrics = metrics
        self._subscriptions = subscriptions

    async def follow_session(self, session_id: str) -> Followed:
        """Fulfil or end the purchase of a Checkout session, as the session is now."""
        session = await self._gateway.find_session(session_id)
        purchase = None if session is None else await self._find_ours(session)
        if session is None or purchase is None:
            return Followed.FOREIGN
        if session.subscription_id is not None:
            return await self.follow_subscription(session.subscription_id)
        if session.state is SessionState.PAID and session.payment is not None:
            if session.payment.state is PaymentState.SUCCEEDED:
                await self._credit(purchase, session.payment, session.bought_cents)
        elif session.state is SessionState.FREE:
            await self._purchases.end(
                purchase.id, PurchaseState.ENDED, "discounted to zero, so there was nothing to pay"
            )
        elif session.state is SessionState.EXPIRED:
            await self._purchases.end(purchase.id, PurchaseState.ENDED, "not paid in time")
        elif session.state is SessionState.FAILED:
            await self._purchases.end(
                purchase.id, PurchaseState.ENDED, "the payment failed", has_failed=True
            )
        return Followed.DONE

    async def follow_subscription(self, subscription_id: str) -> Followed:
        """Bring a subscription up to date, with its latest invoice."""
        return await self._reverse_invoice(
            await self._subscriptions.follow_subscription(subscription_id)
        )

    async def follow_invoice(self, invoice_id: str) -> Followed:
        """Post what follows from an invoice of a subscription, as the invoice is now."""
        return await self._reverse_invoice(await self._subscriptions.follow_invoice(invoice_id))

    async def _reverse_invoice(self, followed: FollowedInvoice | None) -> Followed:
        """Post what took back the payment of an invoice.

        Its refund may have been told before: then no payment of ours was known.
        """
        if followed is None:
            return Followed.FOREIGN
        if followed.payment_id is not None:
            await self.follow_reversals(followed.payment_id)
        return Followed.DONE

    async def follow_payment(self, payment_id: str) -> Followed:
        """Fulfil the purchase of a PaymentIntent, as the PaymentIntent is now."""
        if await self._payments.find(payment_id) is not None:
            # A payment that was credited has succeeded, which is final.
            return Followed.DONE
        facts = await self._gateway.find_payment(payment_id)
        purchase = None if facts is None else await self._find_ours(facts)
        if facts is None or purchase is None:
            return Followed.FOREIGN
        if facts.state is PaymentState.SUCCEEDED:
            await self._credit_as_bought(purchase, facts)
        elif purchase.kind is PurchaseKind.AUTO_TOP_UP and facts.state is not PaymentState.PENDING:
            await self._purchases.end(
                purchase.id,
                PurchaseState.ENDED,
                f"the card was not charged ({facts.failure})",
                has_failed=True,
            )
        return Followed.DONE

    async def follow_reversals(self, payment_id: str) -> Followed:
        """Post what refunds and disputes took of a payment, as they are now."""
        paid = await self._payments.find(payment_id)
        if paid is None:
            # The message about a refund may come before the one about its payment.
            if await self.follow_payment(payment_id) is Followed.FOREIGN:
                return Followed.FOREIGN
            paid = await self._payments.find(payment_id)
            if paid is None:
                return Followed.DONE
        reversals = await self._gateway.list_reversals(payment_id)
        for refund in reversals.refunds:
            await self._reverse(paid, ReversalKind.REFUND, refund.id, refund.cents)
            if refund.has_failed:
                # Both are posted, also where only the failure was seen: a stale answer that still
                # shows the refund would take the credit again otherwise.
                await self._reverse(paid, ReversalKind.REFUND_FAILED, refund.id, refund.cents)
        for dispute in reversals.disputes:
            await self._reverse(
                paid, ReversalKind.DISPUTE_WITHDRAWN, dispute.id, dispute.withdrawn_cents
            )
            await self._reverse(
                paid, ReversalKind.DISPUTE_REINSTATED, dispute.id, dispute.reinstated_cents
            )
        return Followed.DONE

    async def _find_ours(self, facts: CheckoutSession | PaymentFacts) -> Purchase | None:
        """Return the purchase that an object names; None where the object is not ours."""
        if facts.purchase_id is None:
            return None
        purchase = await self._purchases.find(facts.purchase_id)
        if purchase is None or purchase.is_live != facts.is_live:
            return None
        if facts.currency != CURRENCY:
            raise StripeRefused(
                f"{facts.id} is in {facts.currency}, and credit is sold in {CURRENCY}: "
                "refund it at Stripe"
            )
        return purchase

    async def _credit_as_bought(self, purchase: Purchase, facts: PaymentFacts) -> None:
        """Credit a payment whose Checkout session, if it has one, was not read yet."""
        if purchase.kind is PurchaseKind.AUTO_TOP_UP:
            await self._credit(purchase, facts, facts.received_cents)
            return
        session = await self._gateway.find_session_of(facts.id)
        if session is None:
            raise StripeRefused(
                f"{facts.id} names purchase {purchase.id}, but no Checkout session made it"
            )
        await self._credit(purchase, facts, session.bought_cents)

    async def _credit(self, purchase: Purchase, facts: PaymentFacts, bought_cents: int) -> None:
        credited_picos = bought_cents * PICOS_PER_CENT
        if await self._payments.credit(purchase, facts, credited_picos):
            self._metrics.credited_picos.inc(credited_picos)
            _log.info(
                "payment_credited",
                payment_id=facts.id,
                account_id=purchase.account_id,
                amount=format_usd(credited_picos),
            )
        if purchase.saves_card and facts.customer_id and facts.payment_method_id:
            # Before the purchase ends: an outage here leaves it open, and it is tried again.
            await self._gateway.keep_card(facts.customer_id, facts.payment_method_id)
        await self._purchases.end(purchase.id, PurchaseState.PAID)

    async def _reverse(self, paid: Payment, kind: ReversalKind, object_id: str, cents: int) -> None:
        moved_picos = await self._payments.reverse(paid, kind, object_id, cents)
        if moved_picos:
            self._metrics.reversed_picos.labels(kind.value).inc(abs(moved_picos))
            _log.warning(
                "payment_reversed",
                payment_id=paid.id,
                account_id=paid.account_id,
                kind=kind.value,
                amount=format_usd(moved_picos),
            )
