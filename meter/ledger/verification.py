"""The result of verifying the whole books. The queries name the rules V1 to V5."""

from dataclasses import dataclass
from datetime import date, datetime


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
    """The outcome of one check over one consistent snapshot. `head` is None where it is missing,
    which is one of the failures."""

    failures: tuple[Failure, ...]
    totals: BookTotals
    head: ChainHead | None
    dropped_months: tuple[DroppedMonth, ...]

    @property
    def is_ok(self) -> bool:
        """Return whether every invariant holds."""
        return not self.failures
