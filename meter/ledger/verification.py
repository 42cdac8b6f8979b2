"""What a check of the whole books found. See rules V1 to V5 in the docstrings of the queries."""

from dataclasses import dataclass


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
class Verification:
    """The outcome of one check over one consistent snapshot."""

    failures: tuple[Failure, ...]
    totals: BookTotals

    @property
    def is_ok(self) -> bool:
        """Whether every invariant holds."""
        return not self.failures
