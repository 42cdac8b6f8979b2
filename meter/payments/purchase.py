"""Purchases, payments, and the terms under which credit is sold. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.errors import InvalidRequest
from meter.money import PICOS_PER_CENT, format_usd

# Credit and plans are sold in it alone, as Stripe writes it.
CURRENCY: Final = "usd"
# What Stripe itself can charge in US dollars.
LEAST_CHARGE_CENTS: Final = 50
MOST_CHARGE_CENTS: Final = 99_999_999


class AmountOutOfBounds(InvalidRequest):
    """An amount that is not for sale: outside the bounds, or not in whole cents."""


class PurchaseKind(StrEnum):
    """The ways to buy credit: on Stripe's page, by a saved card, or with a plan."""

    CHECKOUT = "checkout"
    AUTO_TOP_UP = "auto_top_up"
    SUBSCRIPTION = "subscription"


class PurchaseState(StrEnum):
    """The states of a purchase. Money that arrives after the end still becomes credit."""

    OPEN = "open"
    PAID = "paid"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SellingTerms:
    """The terms under which credit is sold, which the administrator sets.

    Bought credit expires `credit_days` after it was paid; None is never.
    """

    least_picos: int
    most_picos: int
    is_taxed: bool
    takes_promotion_codes: bool
    makes_invoices: bool = False
    credit_days: int | None = None

    def __post_init__(self) -> None:
        least, most = cents_of(self.least_picos), cents_of(self.most_picos)
        if not LEAST_CHARGE_CENTS <= least <= most <= MOST_CHARGE_CENTS:
            raise AmountOutOfBounds(
                "the least amount must be 0.50 USD or more, and the most amount not below it and "
                "999999.99 USD at most, since Stripe charges no other amounts"
            )

    def require_sold(self, amount_picos: int) -> None:
        """Raise AmountOutOfBounds for an amount that is not for sale."""
        cents_of(amount_picos)
        if not self.least_picos <= amount_picos <= self.most_picos:
            raise AmountOutOfBounds(
                f"credit is sold from {format_usd(self.least_picos)} "
                f"to {format_usd(self.most_picos)} USD at once"
            )


@dataclass(frozen=True, slots=True)
class Purchase:
    """An intention to buy credit. `session_id` is None until Stripe has made the Checkout page."""

    id: UUID
    account_id: str
    kind: PurchaseKind
    is_live: bool
    amount_picos: int
    saves_card: bool
    state: PurchaseState
    session_id: str | None
    reason: str | None
    created_at: datetime
    ended_at: datetime | None
    credit_days: int | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that arrived, and the credit that it became.

    `paid_cents` has tax in it and no discount; `credited_picos` is what was bought, 0 for a plan
    without included credit, which has no posting.
    """

    id: str
    seq: int
    purchase_id: UUID
    account_id: str
    is_live: bool
    paid_cents: int
    credited_picos: int
    posting_id: UUID | None
    receipt_url: str | None
    paid_at: datetime
    reversed_picos: int

    @property
    def paid_picos(self) -> int:
        """Return what was paid, tax included."""
        return self.paid_cents * PICOS_PER_CENT

    def share_of(self, cents: int) -> int:
        """Return the credit that a part of the payment stands for, rounded down to a pico-dollar.

        It depends on that part alone, so parts may come in any order.
        """
        return self.credited_picos * cents // self.paid_cents


def cents_of(picos: int) -> int:
    """Return an amount in cents. Raises AmountOutOfBounds where it is not in whole cents."""
    cents, rest = divmod(picos, PICOS_PER_CENT)
    if rest:
        raise AmountOutOfBounds("payments are in whole cents: two decimals at most")
    return cents
