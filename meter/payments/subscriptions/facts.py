"""The facts that are read from Stripe's subscriptions, invoices and prices. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """A subscription as Stripe has it now. The period is that of its first item.

    While `is_paused`, invoices are made and voided: nothing is charged.
    """

    id: str
    purchase_id: UUID | None
    status: str
    item_id: str
    price_id: str
    period_start: datetime
    period_end: datetime
    cancels_at: datetime | None
    ended_at: datetime | None
    latest_invoice_id: str | None
    is_live: bool
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """A line of an invoice: what a price charges until `ends_at`, before discount and tax.

    Unused time of another price is negative; the days of a trial are 0.
    """

    price_id: str | None
    cents: int
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class SubscriptionInvoice:
    """An invoice of a subscription as Stripe has it now; `payment_id` is None where it was free."""

    id: str
    subscription_id: str
    is_paid: bool
    is_first: bool
    currency: str
    paid_cents: int
    payment_id: str | None
    lines: Sequence[InvoiceLine]
    created_at: datetime
    paid_at: datetime
    page_url: str | None
    is_live: bool


@dataclass(frozen=True, slots=True)
class PriceFacts:
    """A price as Stripe has it now; `period` is None where it is not one week, month or year."""

    id: str
    product_id: str
    cents: int | None
    currency: str
    period: str | None
    is_active: bool
