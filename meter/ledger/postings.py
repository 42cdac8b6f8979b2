"""Postings: balanced, immutable sets of entries, made only from named templates.

Every posting sums to zero or cannot be constructed. Its id is derived from what it is about,
so that the same event posted twice is the same posting. The database checks both again.

Signs: an entry is positive on the ledger account that receives. The customer's entries add up
to the customer's balance.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from meter.errors import BrokenInvariant, InvalidAmount
from meter.holds.hold import Hold
from meter.money import MAX_PICOS

DEBT_BEYOND_LIMIT: Final = (
    "debt beyond the account's limit, from requests that cost more than their holds"
)
_NAMESPACE: Final = UUID("7b6c0f4e-92f1-4d37-9d3c-5d0a6d1f2f55")


class LedgerAccount(StrEnum):
    """The chart of accounts. `customer` is kept per account; the others are the house's."""

    CUSTOMER = "customer"
    PROVIDER = "provider"
    REVENUE = "revenue"
    GRANTS = "grants"
    ADJUSTMENTS = "adjustments"
    LOSSES = "losses"
    PAYMENTS = "payments"
    EXPIRED = "expired"


class Template(StrEnum):
    """The templates of postings."""

    SETTLEMENT = "settlement"
    EXCESS = "excess"
    REVERSAL = "reversal"
    CORRECTION = "correction"
    GRANT = "grant"
    ADJUSTMENT = "adjustment"
    WRITE_OFF = "write_off"
    PAYMENT = "payment"
    PAYMENT_REVERSAL = "payment_reversal"
    EXPIRY = "expiry"


@dataclass(frozen=True, slots=True)
class Entry:
    """One signed amount on one ledger account."""

    ledger_account: LedgerAccount
    amount_picos: int


@dataclass(frozen=True, slots=True)
class Posting:
    """An atomic, balanced set of entries about one account.

    `booked_at` is the time of what it is about, the same however often it is posted, and part of
    the key by which the database refuses a second one; None is the moment of writing. Credit that a
    posting gives expires at `expires_at`; None is never.
    """

    id: UUID
    booked_at: datetime | None
    template: Template
    account_id: str
    entries: tuple[Entry, ...]
    hold_id: UUID | None = None
    reason: str | None = None
    expires_at: datetime | None = None

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


def settlement(
    hold: Hold, cost_picos: int, charge_picos: int, reason: str | None = None
) -> Posting:
    """The charge of one request: the customer pays the provider's cost and our markup.

    There is one settlement per hold, so the hold's id is the posting's.
    """
    return Posting(
        id=hold.id,
        booked_at=hold.placed_at,
        template=Template.SETTLEMENT,
        account_id=hold.account_id,
        hold_id=hold.id,
        reason=reason,
        entries=_charge_entries(cost_picos, charge_picos),
    )


def excess(hold: Hold, cost_picos: int, charge_picos: int) -> Posting:
    """Return the posting of a charge beyond the hold (rule R5): in full, and apart."""
    return _about(hold, Template.EXCESS, 0, cost_picos, charge_picos)


def reversal(hold: Hold, revision: int, cost_picos: int, charge_picos: int) -> Posting:
    """Undoes a charge that was decided by policy, now that the truth is known."""
    return _about(hold, Template.REVERSAL, revision, -cost_picos, -charge_picos)


def correction(hold: Hold, revision: int, cost_picos: int, charge_picos: int) -> Posting:
    """Moves what was charged for a request to what the provider's record says."""
    return _about(hold, Template.CORRECTION, revision, cost_picos, charge_picos)


def credit(
    account_id: str,
    idempotency_key: str,
    amount_picos: int,
    reason: str,
    expires_at: datetime | None = None,
) -> Posting:
    """Credit given (positive) or taken back (negative) by an administrator, with the reason.

    Credit that is given may expire. Raises InvalidAmount where what is taken back has an expiry.
    """
    is_grant = amount_picos > 0
    if expires_at is not None and not is_grant:
        raise InvalidAmount("only credit that is given can expire: leave out expires_at")
    return Posting(
        id=uuid5(_NAMESPACE, f"credit:{account_id}:{idempotency_key}"),
        booked_at=None,
        template=Template.GRANT if is_grant else Template.ADJUSTMENT,
        account_id=account_id,
        reason=reason,
        entries=(
            Entry(LedgerAccount.CUSTOMER, amount_picos),
            Entry(LedgerAccount.GRANTS if is_grant else LedgerAccount.ADJUSTMENTS, -amount_picos),
        ),
        expires_at=expires_at,
    )


def write_off(
    account_id: str, booked_at: datetime, amount_picos: int, reason: str = DEBT_BEYOND_LIMIT
) -> Posting:
    """Return the posting by which the house bears a part of an account's debt.

    A negative amount is what the house takes back of it.
    """
    return Posting(
        id=uuid5(_NAMESPACE, f"write_off:{account_id}:{booked_at.isoformat()}"),
        booked_at=booked_at,
        template=Template.WRITE_OFF,
        account_id=account_id,
        reason=reason,
        entries=(
            Entry(LedgerAccount.CUSTOMER, amount_picos),
            Entry(LedgerAccount.LOSSES, -amount_picos),
        ),
    )


def coupon_credit(
    account_id: str,
    coupon_id: str,
    amount_picos: int,
    name: str,
    expires_at: datetime | None = None,
) -> Posting:
    """Return the posting of credit by a coupon, which an account redeems once."""
    cause = f"coupon:{coupon_id}:{account_id}"
    return _granted(account_id, cause, amount_picos, f"coupon: {name}", expires_at)


def expiry(
    account_id: str, lot_id: UUID, expired_picos: int, amount_picos: int, reason: str
) -> Posting:
    """Return the posting by which a part of a lot expires; `expired_picos` did so before."""
    return Posting(
        id=uuid5(_NAMESPACE, f"expiry:{lot_id}:{expired_picos}"),
        booked_at=None,
        template=Template.EXPIRY,
        account_id=account_id,
        reason=reason,
        entries=(
            Entry(LedgerAccount.CUSTOMER, -amount_picos),
            Entry(LedgerAccount.EXPIRED, amount_picos),
        ),
    )


def payment(account_id: str, payment_id: str, amount_picos: int) -> Posting:
    """Return the posting of credit that was paid for; the payment's id at Stripe is its cause."""
    return _paid(Template.PAYMENT, account_id, payment_id, amount_picos, f"payment {payment_id}")


def payment_reversal(account_id: str, cause: str, amount_picos: int, reason: str) -> Posting:
    """Return the posting by which a refund or dispute takes credit back (a negative amount).

    A positive amount gives it back: the refund failed, or the dispute was won. `cause` is the id
    of the refund or dispute with what happened to it.
    """
    return _paid(Template.PAYMENT_REVERSAL, account_id, cause, amount_picos, reason)


def _granted(
    account_id: str, cause: str, amount_picos: int, reason: str, expires_at: datetime | None
) -> Posting:
    return Posting(
        id=uuid5(_NAMESPACE, cause),
        booked_at=None,
        template=Template.GRANT,
        account_id=account_id,
        reason=reason,
        entries=(
            Entry(LedgerAccount.CUSTOMER, amount_picos),
            Entry(LedgerAccount.GRANTS, -amount_picos),
        ),
        expires_at=expires_at,
    )


def _paid(
    template: Template, account_id: str, cause: str, amount_picos: int, reason: str
) -> Posting:
    return Posting(
        id=uuid5(_NAMESPACE, f"{template.value}:{cause}"),
        booked_at=None,
        template=template,
        account_id=account_id,
        reason=reason,
        entries=(
            Entry(LedgerAccount.CUSTOMER, amount_picos),
            Entry(LedgerAccount.PAYMENTS, -amount_picos),
        ),
    )


def _about(
    hold: Hold, template: Template, revision: int, cost_picos: int, charge_picos: int
) -> Posting:
    suffix = f":{revision}" if revision else ""
    return Posting(
        id=uuid5(_NAMESPACE, f"{template.value}:{hold.id}{suffix}"),
        booked_at=hold.placed_at,
        template=template,
        account_id=hold.account_id,
        hold_id=hold.id,
        entries=_charge_entries(cost_picos, charge_picos),
    )


def _charge_entries(cost_picos: int, charge_picos: int) -> tuple[Entry, ...]:
    entries = (
        Entry(LedgerAccount.CUSTOMER, -charge_picos),
        Entry(LedgerAccount.PROVIDER, cost_picos),
        Entry(LedgerAccount.REVENUE, charge_picos - cost_picos),
    )
    return tuple(entry for entry in entries if entry.amount_picos != 0)
