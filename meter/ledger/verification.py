"""The result of verifying the books: failures of named invariants, and totals."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

SAMPLE_IDS: Final = 10
# By invariant: what a failure says of the ids where it is broken. The queries name the rules V1 to
# V5, V8 and V11.
INVARIANTS: Final = {
    "postings_balance": "postings do not sum to zero",
    "entries_belong": "postings are missing, or have entries of another account",
    "balances": "users have a balance other than the sum of their ledger entries",
    "held": "users have set aside other than the sum of their live holds",
    "available": "users are below zero by more than their excess postings explain",
    "one_settlement": "holds have more than one settlement or excess posting",
    "charges": "requests have postings that differ from their usage record",
    "endings": "holds and usage records do not match one to one",
    "limits": "holds are open past their limit, so nobody sweeps",
    "sealed": "sealed months differ from the ledger",
    "payments": "payments, refunds or disputes differ from their postings",
    "lots": "users or lots have other expiring credit than their balance and postings say",
    "chain": "batches of the ledger were changed after they were written, or are missing",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One broken invariant: how often, and some of the ids where it is broken."""

    invariant: str
    message: str
    count: int
    sample_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BookTotals:
    """Sums over the whole ledger, in pico-dollars, and how much there is of everything."""

    postings: int
    entries: int
    accounts: int
    holds: int
    usage_records: int
    settlement_conflicts: int
    provisional_records: int
    batches: int
    open_holds: int
    unknown_holds: int
    stale_open_holds: int
    provider_cost_picos: int
    charge_picos: int
    excess_picos: int


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The youngest checkpoint, which signs the youngest batch of every chain and the sums there.

    Written down elsewhere, it shows whether somebody later made the whole ledger anew.
    """

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class DroppedMonth:
    """A month of usage or ledger of which only sealed totals are left."""

    kind: str
    month: date
    dropped_at: datetime


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of one check of the whole books. `head` is None where it is missing,
    which is one of the failures."""

    failures: tuple[Failure, ...]
    totals: BookTotals
    head: ChainHead | None
    dropped_months: tuple[DroppedMonth, ...]

    @property
    def is_ok(self) -> bool:
        """Return whether every invariant holds."""
        return not self.failures


def failures_from(found: Iterable[tuple[str, str]]) -> tuple[Failure, ...]:
    """Return the failures for pairs of an invariant and an id where it is broken."""
    by_invariant: dict[str, set[str]] = defaultdict(set)
    for invariant, one in found:
        by_invariant[invariant].add(one)
    return tuple(
        Failure(
            invariant,
            f"{len(ids)} {INVARIANTS[invariant]}",
            len(ids),
            tuple(sorted(ids)[:SAMPLE_IDS]),
        )
        for invariant, ids in by_invariant.items()
    )


def merged(first: tuple[Failure, ...], second: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """Return the failures of two checks; the first stands for an invariant that both name."""
    named = {one.invariant for one in first}
    return (*first, *(one for one in second if one.invariant not in named))
