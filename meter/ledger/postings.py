"""Postings: balanced, immutable sets of entries, made only from named templates.

Every posting sums to zero or cannot be constructed. Its id is derived from what it is about,
so that the same event posted twice is the same posting. The database checks both again.

Signs: an entry is positive on the ledger account that receives. The customer's entries add up
to the customer's balance.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from meter.errors import BrokenInvariant, InvalidAmount
from meter.money import MAX_PICOS

_NAMESPACE: Final = UUID("7b6c0f4e-92f1-4d37-9d3c-5d0a6d1f2f55")


class LedgerAccount(StrEnum):
    """The chart of accounts. `customer` is kept per account; the others are the house's."""

    CUSTOMER = "customer"
    PROVIDER = "provider"
    REVENUE = "revenue"
    GRANTS = "grants"
    ADJUSTMENTS = "adjustments"


class Template(StrEnum):
    """What a posting records."""

    SETTLEMENT = "settlement"
    EXCESS = "excess"
    GRANT = "grant"
    ADJUSTMENT = "adjustment"


@dataclass(frozen=True, slots=True)
class Entry:
    """One signed amount on one ledger account."""

    ledger_account: LedgerAccount
    amount_picos: int


@dataclass(frozen=True, slots=True)
class Posting:
    """An atomic, balanced set of entries about one account."""

    id: UUID
    template: Template
    account_id: str
    entries: tuple[Entry, ...]
    hold_id: UUID | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if sum(entry.amount_picos for entry in self.entries) != 0:
            raise BrokenInvariant(f"a {self.template} posting does not sum to zero")
        if any(abs(entry.amount_picos) > MAX_PICOS for entry in self.entries):
            raise InvalidAmount("an amount does not fit a ledger entry")

    @property
    def customer_picos(self) -> int:
        """By how much this posting moves the customer's balance."""
        return sum(
            entry.amount_picos
            for entry in self.entries
            if entry.ledger_account is LedgerAccount.CUSTOMER
        )


def settlement(hold_id: UUID, account_id: str, cost_picos: int, charge_picos: int) -> Posting:
    """The charge of one request: the customer pays the provider's cost and our markup.

    There is one settlement per hold, so the hold's id is the posting's.
    """
    return Posting(
        id=hold_id,
        template=Template.SETTLEMENT,
        account_id=account_id,
        hold_id=hold_id,
        entries=_charge_entries(cost_picos, charge_picos),
    )


def excess(hold_id: UUID, account_id: str, cost_picos: int, charge_picos: int) -> Posting:
    """What a request cost beyond its hold (rule R5): posted in full, and told apart."""
    return Posting(
        id=uuid5(_NAMESPACE, f"excess:{hold_id}"),
        template=Template.EXCESS,
        account_id=account_id,
        hold_id=hold_id,
        entries=_charge_entries(cost_picos, charge_picos),
    )


def credit(account_id: str, idempotency_key: str, amount_picos: int, reason: str) -> Posting:
    """Credit given (positive) or taken back (negative) by an administrator, with the reason."""
    is_grant = amount_picos > 0
    return Posting(
        id=uuid5(_NAMESPACE, f"credit:{account_id}:{idempotency_key}"),
        template=Template.GRANT if is_grant else Template.ADJUSTMENT,
        account_id=account_id,
        reason=reason,
        entries=(
            Entry(LedgerAccount.CUSTOMER, amount_picos),
            Entry(LedgerAccount.GRANTS if is_grant else LedgerAccount.ADJUSTMENTS, -amount_picos),
        ),
    )


def _charge_entries(cost_picos: int, charge_picos: int) -> tuple[Entry, ...]:
    entries = (
        Entry(LedgerAccount.CUSTOMER, -charge_picos),
        Entry(LedgerAccount.PROVIDER, cost_picos),
        Entry(LedgerAccount.REVENUE, charge_picos - cost_picos),
    )
    return tuple(entry for entry in entries if entry.amount_picos != 0)
