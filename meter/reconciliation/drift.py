"""Drift: the difference found between two books that should agree. Pure.

Drift is reported and never repaired: a repair without an explanation would hide a fault. Charges by
policy are no drift: they are guesses, and the provider's total shows what they cost together.
"""

from dataclasses import dataclass
from typing import Final

from meter.ledger.verification import Failure

# Providers add up floats and print a limited number of digits. No request costs a nano-dollar.
ROUNDING_PICOS: Final = 1_000


@dataclass(frozen=True, slots=True)
class BookComparison:
    """Two books side by side, in pico-dollars.

    `drift_picos` adds up the differences of all accounts without their signs, so that two of them
    cannot hide each other; `differing` counts those accounts.
    """

    book: str
    expected_picos: int
    found_picos: int
    drift_picos: int
    differing: int


@dataclass(frozen=True, slots=True)
class ProviderTotal:
    """The total that a provider says it billed to one key, in pico-dollars."""

    provider: str
    key_version: int
    total_picos: int


@dataclass(frozen=True, slots=True)
class LedgerCost:
    """The provider's bill by our books, read after the provider's total was asked for.

    `recent_picos` is the part of `ledger_picos` that was booked so recently that the provider's
    total may lack it. `in_flight_picos` bounds what live holds may have been billed.
    `provisional_picos` is the sum of charges by policy without a later report: these requests
    were billed between nothing and `provisional_most_picos`, which their holds cover.
    """

    ledger_picos: int
    recent_picos: int
    in_flight_picos: int
    provisional_picos: int
    # Reports of before the guesses lack it.
    provisional_most_picos: int = 0

    @property
    def settled_picos(self) -> int:
        """Return the part of the ledger whose cost is known."""
        return self.ledger_picos - self.provisional_picos

    @property
    def least_picos(self) -> int:
        """Return the part of the provider's total that is certainly ours."""
        return self.settled_picos - self.recent_picos

    @property
    def most_picos(self) -> int:
        """Return the most of the total that can be ours: requests are booked or held."""
        guessed_picos = max(self.provisional_picos, self.provisional_most_picos)
        return self.settled_picos + guessed_picos + self.in_flight_picos


@dataclass(frozen=True, slots=True)
class Outside:
    """The amount billed to a key outside our books, mostly from before they began.

    The amount never changes, so each reading narrows its range; two readings that exclude each
    other are drift. Requests in flight only widen a reading, and so are never taken for drift.
    """

    least_picos: int
    most_picos: int

    @classmethod
    def seen(cls, total: ProviderTotal, cost: LedgerCost) -> "Outside":
        """Return the range that one reading of both books gives."""
        return cls(total.total_picos - cost.most_picos, total.total_picos - cost.least_picos)

    def drift_picos(self, later: "Outside") -> int:
        """Return how far a later reading lies outside of the range: above zero, the provider billed
        more than our books explain; below zero, our books have more than the provider billed."""
        above = later.least_picos - self.most_picos
        below = later.most_picos - self.least_picos
        drift = above if above > 0 else min(0, below)
        return drift if abs(drift) > ROUNDING_PICOS else 0

    def narrowed(self, later: "Outside") -> "Outside":
        """Return the range that both readings allow; rounding may separate them."""
        least = max(self.least_picos, later.least_picos)
        return Outside(least, max(least, min(self.most_picos, later.most_picos)))


@dataclass(frozen=True, slots=True)
class ProviderComparison:
    """The provider's total against our books. `drift_picos` has the sign of `Outside`."""

    total: ProviderTotal
    cost: LedgerCost
    outside: Outside
    drift_picos: int
    is_new_baseline: bool


def compare_provider(
    total: ProviderTotal, cost: LedgerCost, baseline: Outside | None
) -> ProviderComparison:
    """Compare a reading with the baseline of the key; the first reading becomes the baseline."""
    seen = Outside.seen(total, cost)
    if baseline is None:
        return ProviderComparison(total, cost, seen, 0, is_new_baseline=True)
    drift_picos = baseline.drift_picos(seen)
    # A reading that contradicts the baseline must not become a part of it.
    outside = baseline if drift_picos else baseline.narrowed(seen)
    return ProviderComparison(total, cost, outside, drift_picos, is_new_baseline=False)


def guessed_total(comparison: ProviderComparison) -> int | None:
    """Return what requests that a policy charged cost together; None where it is not known.

    The provider's total, less what it billed outside our books and what is settled, is what they
    cost. Requests in flight and recent ones leave a range of it: a sum of guesses within the range
    contradicts nothing and stays, another one is moved to the nearer end. At a quiet moment the
    range is one amount. A total that drifts for another reason says nothing about them.
    """
    cost, outside = comparison.cost, comparison.outside
    if comparison.is_new_baseline or comparison.drift_picos or not cost.provisional_most_picos:
        return None
    billed_picos = comparison.total.total_picos - cost.settled_picos
    least = billed_picos - outside.most_picos - cost.in_flight_picos
    most = billed_picos - outside.least_picos + cost.recent_picos
    guessed = min(max(cost.provisional_picos, least), max(least, most))
    guessed = min(max(guessed, 0), cost.provisional_most_picos)
    return None if guessed == cost.provisional_picos else guessed


@dataclass(frozen=True, slots=True)
class CorrectedGuesses:
    """Charges by policy that the provider's total corrected.

    `requests` counts them, and `moved_picos` is the difference of their cost, with its sign.
    """

    requests: int
    moved_picos: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Counts that need an administrator's attention; the first three are since the last run.

    `stuck_holds` are unknown holds without a look-up, or long past the deadline of theirs.
    """

    settlement_conflicts: int
    policy_charges: int
    policy_voids: int
    unknown_holds: int
    stale_holds: int
    stuck_holds: int


@dataclass(frozen=True, slots=True)
class ReconciliationReport:
    """The result of one reconciliation. Without `provider`, `provider_problem` says why.

    `guesses` are charges by policy that were corrected after the comparison.
    """

    books: tuple[BookComparison, ...]
    failures: tuple[Failure, ...]
    attention: Attention
    provider: ProviderComparison | None
    provider_problem: str | None
    guesses: CorrectedGuesses | None = None

    @property
    def is_ok(self) -> bool:
        """Return whether no book contradicts another."""
        return not self.failures and not any(self.drifts().values())

    def drifts(self) -> dict[str, int]:
        """Return the drift of each book in pico-dollars; the provider's only if it was compared."""
        found = {one.book: one.drift_picos for one in self.books}
        if self.provider is not None:
            found["provider"] = self.provider.drift_picos
        return found
