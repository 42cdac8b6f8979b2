"""Sells credit: opens purchases, refunds payments, and opens the customer's portal."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

import structlog

from meter.audit.audit_store import AuditStore
from meter.audit.events import Actor, AuditEvent
from meter.errors import NotFound
from meter.money import PICOS_PER_USD, format_usd
from meter.payments.fulfilment import Fulfilment
from meter.payments.go_live import SellingNotOpen
from meter.payments.go_live_store import GoLiveStore
from meter.payments.payment_store import PaymentStore
from meter.payments.purchase import Payment, Purchase, PurchaseKind, SellingTerms, cents_of
from meter.payments.purchase_store import PurchaseStore
from meter.payments.stripe_facts import CustomerGone, InvoiceFacts

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway

RETURN_PATH: Final = "/api/v1/billing/return"
PROOF_PICOS: Final = PICOS_PER_USD
Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedPurchase:
    """A purchase and the page at Stripe on which it is paid."""

    purchase: Purchase
    url: str


class Selling:
    """Sells credit. Raises StripeUnavailable, StripeRefused and StoreUnavailable."""

    def __init__(
        self,
        gateway: "StripeGateway",
        purchases: PurchaseStore,
        payments: PaymentStore,
        fulfilment: Fulfilment,
        audit: AuditStore,
        go_lives: GoLiveStore,
        return_base: str,
    ) -> None:
        self._gateway = gateway
        self._purchases = purchases
        self._payments = payments
        self._fulfilment = fulfilment
        self._audit = audit
        self._go_lives = go_lives
        self.return_url = f"{return_base}{RETURN_PATH}"

    async def open_checkout(
        self, account_id: str, amount_picos: int, saves_card: bool, actor: Actor
    ) -> OpenedPurchase:
        """Open the purchase of an amount of credit on Stripe's page.

        Raises AmountOutOfBounds, NotFound for an unknown account, SellingNotOpen.
        """
        await self.require_open()
        terms = await self._purchases.get_terms()
        terms.require_sold(amount_picos)
        return await self._open(account_id, amount_picos, saves_card, terms, actor)

    async def is_open(self) -> bool:
        """Return whether credit is sold: in test mode, and live once going live has passed."""
        return not self._gateway.is_live or await self._go_lives.is_open()

    async def require_open(self) -> None:
        """Raise SellingNotOpen before going live has passed."""
        if not await self.is_open():
            raise SellingNotOpen(
                "no credit is sold here yet: the administrator has not finished going live"
            )

    async def open_proof(self, account_id: str, actor: Actor) -> OpenedPurchase:
        """Open the purchase of 1 USD that proves that selling works, also before it is open.

        Raises NotFound for an unknown account.
        """
        terms = await self._purchases.get_terms()
        return await self._open(account_id, PROOF_PICOS, False, terms, actor)

    async def _open(
        self,
        account_id: str,
        amount_picos: int,
        saves_card: bool,
        terms: SellingTerms,
        actor: Actor,
    ) -> OpenedPurchase:
        await self._purchases.find_customer(account_id, self._gateway.is_live)
        purchase = await self._purchases.open_purchase(
            uuid4(),
            account_id,
            PurchaseKind.CHECKOUT,
            self._gateway.is_live,
            amount_picos,
            saves_card,
            actor,
        )
        page = await self.with_customer(
            account_id,
            lambda customer_id: self._gateway.create_checkout(
                purchase, customer_id, terms, self.return_url
            ),
        )
        await self._purchases.set_session(purchase.id, page.session_id)
        return OpenedPurchase(purchase, page.url)

    async def open_portal(self, account_id: str) -> str:
        """Return the address of the account's pages at Stripe. Raises NotFound."""
        return await self.with_customer(
            account_id,
            lambda customer_id: self._gateway.create_portal(customer_id, self.return_url),
        )

    async def list_invoices(
        self, account_id: str, after: str | None, limit: int
    ) -> list[InvoiceFacts]:
        """Return invoices of an account as Stripe has them, newest first. Raises NotFound."""
        _, customer_id = await self._purchases.find_customer(account_id, self._gateway.is_live)
        if customer_id is None:
            return []
        return await self._gateway.list_invoices(customer_id, after, limit)

    async def refund(
        self, payment_id: str, amount_picos: int | None, key: str, actor: Actor
    ) -> Payment:
        """Refund what is left of a payment, or a part of it, once for each key.

        The amount is what the customer gets back, tax included. Raises NotFound, and
        AmountOutOfBounds for parts of a cent.
        """
        paid = await self._payments.get(payment_id)
        if paid.is_live != self._gateway.is_live:
            raise NotFound(f"there is no payment '{payment_id}' in this mode")
        cents = None if amount_picos is None else cents_of(amount_picos)
        await self._gateway.refund(payment_id, cents, f"refund-{payment_id}-{key}")
        amount = {} if amount_picos is None else {"amount": format_usd(amount_picos)}
        detail = {"payment_id": payment_id, **amount}
        event = AuditEvent("payment.refunded", f"user:{paid.account_id}", paid.account_id, detail)
        await self._audit.add(actor, event)
        await self._fulfilment.follow_reversals(payment_id)
        return await self._payments.get(payment_id)

    async def with_customer(
        self, account_id: str, work: Callable[[str], Awaitable[Result]]
    ) -> Result:
        """Do something with the account's customer at Stripe, which is made at its first use.

        One that was deleted at Stripe is made anew.
        """
        is_live = self._gateway.is_live
        email, customer_id = await self._purchases.find_customer(account_id, is_live)
        if customer_id is not None:
            try:
                return await work(customer_id)
            except CustomerGone:
                _log.warning("stripe_customer_gone", account_id=account_id)
        made = await self._gateway.create_customer(account_id, email)
        return await work(
            await self._purchases.save_customer(account_id, is_live, made, customer_id)
        )
