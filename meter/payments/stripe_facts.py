"""The facts that are read from Stripe's objects. All amounts are cents of US dollars. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from meter.errors import MeterError, Outage
from meter.money import PICOS_PER_CENT


class StripeUnavailable(Outage):
    """Stripe does not answer, is busy, or does not accept our key."""


class StripeRefused(MeterError):
    """Stripe refuses a request for good; the message says why."""


class CustomerGone(StripeRefused):
    """The customer that stands for an account was deleted at Stripe."""


class WebhookRefused(MeterError):
    """A webhook that Stripe did not send to us: its signature, age or mode is wrong."""


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """An event: that something happened to an object, which is then fetched."""

    id: str
    type: str
    object_id: str
    is_live: bool
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class ListedEvents:
    """Events of a period, oldest first. Where it is not whole, the oldest ones are missing."""

    events: list[StripeEvent]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class CheckoutPage:
    """A Checkout session that a customer may pay."""

    session_id: str
    url: str


@dataclass(frozen=True, slots=True)
class CardDeclined:
    """A bank's refusal to charge a saved card."""

    code: str


class SessionState(StrEnum):
    """The states of a Checkout session that matter here."""

    OPEN = "open"
    PENDING = "pending"
    PAID = "paid"
    FREE = "free"
    FAILED = "failed"
    EXPIRED = "expired"


class PaymentState(StrEnum):
    """The states of a PaymentIntent that matter here."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NEEDS_CUSTOMER = "needs_customer"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """A PaymentIntent as Stripe has it now."""

    id: str
    purchase_id: UUID | None
    state: PaymentState
    currency: str
    received_cents: int
    paid_at: datetime
    receipt_url: str | None
    customer_id: str | None
    payment_method_id: str | None
    is_live: bool
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """A Checkout session as Stripe has it now.

    `bought_cents` is what was bought: the subtotal less the discount, never tax.
    """

    id: str
    purchase_id: UUID | None
    state: SessionState
    payment: PaymentFacts | None
    currency: str
    bought_cents: int
    is_live: bool
    subscription_id: str | None = None


@dataclass(frozen=True, slots=True)
class RefundFacts:
    """A refund. One that failed or was canceled has given the money back to us."""

    id: str
    cents: int
    has_failed: bool


@dataclass(frozen=True, slots=True)
class DisputeFacts:
    """A dispute, with the money that it took and that came back; 0 for none."""

    id: str
    withdrawn_cents: int
    reinstated_cents: int


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """An address that Stripe tells of events; `*` among the types stands for all."""

    url: str
    is_enabled: bool
    event_types: Sequence[str]


@dataclass(frozen=True, slots=True)
class BalanceMovement:
    """A balance transaction: money that came to us or left us, before Stripe's fee.

    `cents` are in `currency`, that of the balance; `sold_cents` in US dollars, in which credit is
    sold, None where the movement has no such amount. Both are below zero where money left.
    `is_pending` marks a charge that may still fail. `customer_id` is the customer who was charged.
    """

    category: str
    source_id: str
    payment_id: str | None
    purchase_id: UUID | None
    currency: str
    cents: int
    sold_cents: int | None
    fee_cents: int
    is_pending: bool
    created_at: datetime
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class InvoiceFacts:
    """An invoice as Stripe has it now. Amounts are in cents of its currency."""

    id: str
    number: str | None
    status: str
    currency: str
    total_cents: int
    tax_cents: int
    paid_cents: int
    created_at: datetime
    page_url: str | None
    pdf_url: str | None

    @property
    def total_picos(self) -> int:
        """Return the total, tax included."""
        return self.total_cents * PICOS_PER_CENT

    @property
    def tax_picos(self) -> int:
        """Return the tax in the total."""
        return self.tax_cents * PICOS_PER_CENT

    @property
    def paid_picos(self) -> int:
        """Return what was paid of the total."""
        return self.paid_cents * PICOS_PER_CENT


@dataclass(frozen=True, slots=True)
class ReversalFacts:
    """The refunds and disputes of one payment."""

    refunds: Sequence[RefundFacts]
    disputes: Sequence[DisputeFacts]
