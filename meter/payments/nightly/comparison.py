"""Compares Stripe's balance transactions of a day with the postings of payments. Pure.

Rows are matched by the object that caused both, not by sums: a sum hides two differences that
cancel out, and a posting that a sweep brought late belongs to the day on which Stripe moved money.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

from meter.payments.payment_store import ReversalKind
from meter.payments.stripe_facts import BalanceMovement

CHARGE: Final = "charge"
# By Stripe's reporting category: the kind of our row. A charge that fails later takes its own back.
KINDS: Final = {
    "charge": CHARGE,
    "charge_failure": CHARGE,
    "refund": ReversalKind.REFUND.value,
    "refund_failure": ReversalKind.REFUND_FAILED.value,
    "dispute": ReversalKind.DISPUTE_WITHDRAWN.value,
    "dispute_reversal": ReversalKind.DISPUTE_REINSTATED.value,
}
KIND_ORDER: Final = tuple(dict.fromkeys(KINDS.values()))
MOST_DIFFERENCES_LISTED: Final = 100
_TAKES: Final = frozenset({ReversalKind.REFUND.value, ReversalKind.DISPUTE_WITHDRAWN.value})


@dataclass(frozen=True, slots=True)
class BookedRow:
    """A row of our books, by what caused it: a payment's id, or a reversal's cause."""

    cause: str
    kind: str
    payment_id: str
    account_id: str
    cents: int


@dataclass(frozen=True, slots=True)
class ComparedKind:
    """Movements of one kind in both books; cents are above zero whichever way the money went."""

    kind: str
    stripe_count: int
    stripe_cents: int
    booked_count: int
    booked_cents: int


@dataclass(frozen=True, slots=True)
class OtherMovements:
    """Movements at Stripe that no posting stands for: payouts, taxes, Stripe's own fees."""

    category: str
    currency: str
    count: int
    cents: int


@dataclass(frozen=True, slots=True)
class Fees:
    """The fees that Stripe kept of the day's movements, in one currency."""

    currency: str
    cents: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A movement that is in one book only, or in both with different amounts. Cents; None: none."""

    kind: str
    cause: str
    payment_id: str | None
    account_id: str | None
    stripe_cents: int | None
    booked_cents: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class DayReport:
    """The comparison of one day. `differences` has the first ones of `difference_count`.

    `not_ours` counts movements of payments that Tollkeeper did not begin, `pending` those that may
    still fail, and `of_other_days` rows written on this day for money of another.
    """

    kinds: Sequence[ComparedKind]
    fees: Sequence[Fees]
    others: Sequence[OtherMovements]
    not_ours: int
    pending: int
    of_other_days: int
    difference_count: int
    differences: Sequence[Difference] = field(default_factory=tuple)

    @property
    def is_ok(self) -> bool:
        """Return whether both books agree."""
        return not self.difference_count


@dataclass(frozen=True, slots=True)
class StripeSide:
    """Stripe's movements of a day, added up by the cause that our row would have."""

    totals: Mapping[str, BalanceMovement]
    pending: int
    fees: Sequence[Fees]
    others: Sequence[OtherMovements]


def cause_of(movement: BalanceMovement) -> str | None:
    """Return the cause that our row of a movement has; None where we write no row."""
    kind = KINDS.get(movement.category)
    if kind is None:
        return None
    if kind == CHARGE:
        return movement.payment_id
    return f"{movement.source_id}:{kind}"


def read_stripe(movements: Iterable[BalanceMovement]) -> StripeSide:
    """Return Stripe's side of a day."""
    totals: dict[str, BalanceMovement] = {}
    fees: dict[str, int] = defaultdict(int)
    others: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    pending = 0
    for one in movements:
        fees[one.currency] += one.fee_cents
        cause = cause_of(one)
        if cause is None:
            sums = others[one.category, one.currency]
            sums[0] += 1
            sums[1] += one.cents
        elif one.is_pending:
            pending += 1
        else:
            before = totals.get(cause)
            # One dispute may take money in parts.
            cents = one.cents + (0 if before is None else before.cents)
            sold = _sum(one.sold_cents, 0 if before is None else before.sold_cents)
            totals[cause] = replace(before or one, cents=cents, sold_cents=sold)
    # A charge and its failure on one day are no money at all.
    totals = {
        cause: one for cause, one in totals.items() if one.cents or KINDS[one.category] != CHARGE
    }
    return StripeSide(
        totals,
        pending,
        [Fees(currency, cents) for currency, cents in sorted(fees.items()) if cents],
        [
            OtherMovements(category, currency, count, cents)
            for (category, currency), (count, cents) in sorted(others.items())
        ],
    )


def compare(
    side: StripeSide,
    booked: Mapping[str, BookedRow],
    ours: Mapping[str, str],
    strays: Sequence[Difference],
    of_other_days: int,
) -> DayReport:
    """Return the report of a day.

    `booked` are our rows by cause, `ours` the accounts of our payments, purchases and customers by
    id, and `strays` the rows of ours that Stripe knows nothing of.
    """
    differences: list[Difference] = []
    stripe: dict[str, list[int]] = {kind: [0, 0] for kind in KIND_ORDER}
    books: dict[str, list[int]] = {kind: [0, 0] for kind in KIND_ORDER}
    not_ours = 0
    for cause, movement in side.totals.items():
        kind = KINDS[movement.category]
        row = booked.get(cause)
        account_id = row.account_id if row else _owner(movement, ours)
        if account_id is None:
            not_ours += 1
            continue
        stripe_cents = None if movement.sold_cents is None else abs(movement.sold_cents)
        stripe[kind][0] += 1
        stripe[kind][1] += stripe_cents or 0
        if row is not None:
            books[kind][0] += 1
            books[kind][1] += row.cents
        if row is None or stripe_cents != row.cents:
            differences.append(
                Difference(
                    kind,
                    cause,
                    movement.payment_id,
                    account_id,
                    stripe_cents,
                    None if row is None else row.cents,
                    _sentence(kind, movement, row),
                )
            )
    for stray in strays:
        differences.append(stray)
        books[stray.kind][0] += 1
        books[stray.kind][1] += stray.booked_cents or 0
    return DayReport(
        kinds=[ComparedKind(kind, *stripe[kind], *books[kind]) for kind in KIND_ORDER],
        fees=side.fees,
        others=side.others,
        not_ours=not_ours,
        pending=side.pending,
        of_other_days=of_other_days,
        difference_count=len(differences),
        differences=differences[:MOST_DIFFERENCES_LISTED],
    )


def stray(row: BookedRow, sentence: str) -> Difference:
    """Return the difference of a row of ours for which Stripe moved no such money."""
    return Difference(
        row.kind, row.cause, row.payment_id, row.account_id, None, row.cents, sentence
    )


def missing_days(
    first: date | None, compared: Collection[date], last: date, most: int
) -> tuple[Sequence[date], int]:
    """Return the days to compare up to `last`, oldest first, and how many are too old for it.

    `first` is the first day that was ever compared; before the first comparison, `last` is the
    only one.
    """
    if first is None:
        return [last], 0
    days = [date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1)]
    missing = [day for day in days if day not in compared]
    recent = [day for day in missing if last.toordinal() - day.toordinal() < most]
    return recent, len(missing) - len(recent)


def _owner(movement: BalanceMovement, ours: Mapping[str, str]) -> str | None:
    """Return the account of a movement that we have no row of; None where it is not ours."""
    names = (movement.payment_id or "", str(movement.purchase_id), movement.customer_id or "")
    return next((ours[name] for name in names if name in ours), None)


def _sentence(kind: str, movement: BalanceMovement, row: BookedRow | None) -> str:
    if movement.sold_cents is None:
        return (
            f"Stripe moved {movement.currency.upper()}, and credit is sold in USD: "
            "refund the payment at Stripe"
        )
    if row is not None:
        return (
            f"Stripe moved {_usd(abs(movement.sold_cents))} USD and {_usd(row.cents)} USD are in "
            "the books: look at the object at Stripe, and correct with `tollkeeper credits`"
        )
    replay = "replay its event (`tollkeeper payments events`), then compare the day again"
    if kind == CHARGE:
        return f"Stripe took the money and no credit was given: {replay}"
    if kind in _TAKES:
        return f"Stripe took the money back and the credit is still there: {replay}"
    return f"Stripe returned the money and the credit was not given back: {replay}"


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _usd(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
