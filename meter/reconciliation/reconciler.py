"""Reconciliation: compares the books with one another and with the provider's own total.

It reports drift in a report, a metric and a log event, and repairs none. Only charges by policy,
which are guesses, are corrected to the sum that the provider's total shows.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import Conflict, ProviderUnavailable, SealBroken, StoreUnavailable
from meter.process.periodic import periodic
from meter.reconciliation.drift import (
    CorrectedGuesses,
    ProviderTotal,
    ReconciliationReport,
    compare_provider,
    guessed_total,
)
from meter.reconciliation.reconciliation_store import (
    BooksRead,
    OpenBooks,
    Reconciled,
    ReconciliationStore,
)
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.spreading import spread

# The time that a provider may take until its total includes a request that we have settled.
PROVIDER_LAG: Final = timedelta(minutes=5)
FIRST_RUN_AFTER_S: Final = 30.0
RETRY_S: Final = 60.0
# A verification that takes too long pins a snapshot each time, so that its retries become rare.
MOST_RETRY_S: Final = 21_600.0
# Another meter may have reconciled meanwhile, so the due time is read again this often.
LOOK_EVERY_S: Final = 300.0
# Charges by policy that one transaction corrects.
SHARES_A_BATCH: Final = 200

_log = structlog.get_logger(__name__)


class ProviderTotals(Protocol):
    """Asks a provider for the total that it billed to our key."""

    async def find_total(self) -> ProviderTotal | None:
        """Return the total of the key in use; None if no key is set.

        Raises ProviderUnavailable when it does not answer, SealBroken for a key that cannot be
        opened, StoreUnavailable during an outage.
        """
        ...


class DriftMetrics:
    """The metrics of the last reconciliation, whichever meter ran it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.drift = Gauge(
            "tollkeeper_reconciliation_drift_picos",
            "Difference between two books that should agree, in pico-dollars.",
            ["book"],
            registry=registry,
        )
        self.failures = Gauge(
            "tollkeeper_reconciliation_failures",
            "Invariants that the last reconciliation found broken.",
            registry=registry,
        )
        self.ran_at = Gauge(
            "tollkeeper_reconciled_at_seconds",
            "When the last reconciliation ran, in seconds since 1970.",
            registry=registry,
        )
        self.corrected_guesses = Counter(
            "tollkeeper_corrected_guesses",
            "Charges by policy that the provider's total corrected.",
            registry=registry,
        )
        self.failed_runs = Counter(
            "tollkeeper_reconciliation_failed_runs",
            "Reconciliations that could not be carried out.",
            registry=registry,
        )

    def show(self, reconciled: Reconciled) -> None:
        """Show the figures of a report."""
        for book, picos in reconciled.report.drifts().items():
            self.drift.labels(book).set(picos)
        self.failures.set(len(reconciled.report.failures))
        self.ran_at.set(reconciled.at.timestamp())


class Reconciler:
    """Runs reconciliations. It owns the metrics, so a process has one.

    Charges by policy are corrected through `settlements`; None leaves them as they are. The
    provider takes up to `provider_lag` until its total has a request that was settled.
    """

    def __init__(
        self,
        store: ReconciliationStore,
        totals: ProviderTotals,
        registry: CollectorRegistry,
        settlements: PostgresSettlementStore | None = None,
        provider_lag: timedelta = PROVIDER_LAG,
    ) -> None:
        self.store = store
        self._settlements = settlements
        self._provider_lag = provider_lag
        self._totals = totals
        self.metrics = DriftMetrics(registry)

    async def reconcile(self, takes_new_baseline: bool = False) -> Reconciled:
        """Compare all books now, row by row, store the report, and raise the alarm for drift.

        With `takes_new_baseline`, the present total of the provider counts as explained. Raises
        Conflict while another meter reconciles, StoreUnavailable during an outage.
        """
        async with self.store.open() as books:
            return await self._reconcile(books, takes_new_baseline, reads_all=True)

    async def reconcile_if_due(self, every_s: float) -> None:
        """Reconcile unless a meter has done so within the interval. Raises as `reconcile` does.

        It reads what came since the youngest checkpoint, and its sums for what was before.
        """
        async with self.store.open() as books:
            if await books.due_in_s(every_s) <= 0:
                await self._reconcile(books, takes_new_baseline=False, reads_all=False)

    async def _reconcile(
        self, books: OpenBooks, takes_new_baseline: bool, reads_all: bool
    ) -> Reconciled:
        # The provider is asked first: all that it had billed by then is booked or in flight now.
        asked_at = await books.now()
        total, problem = await self._ask()
        read = await books.read(total, asked_at - self._provider_lag, reads_all)
        report = to_report(read, total, problem, takes_new_baseline)
        if report.provider is not None and self._settlements is not None:
            guessed_picos = guessed_total(report.provider)
            if guessed_picos is not None:
                corrected = await self._correct(read, self._settlements, guessed_picos)
                report = replace(report, guesses=corrected)
        reconciled = await books.save(report)
        self.metrics.show(reconciled)
        _tell(reconciled)
        return reconciled

    async def _correct(
        self, read: BooksRead, settlements: PostgresSettlementStore, guessed_picos: int
    ) -> CorrectedGuesses:
        """Let the guesses that were read add up to the total that all of them have."""
        # Of more guesses than one run corrects, the others stay.
        listed_picos = sum(guess.cost_picos for guess in read.guesses)
        others_picos = read.cost.provisional_picos - listed_picos
        shares = spread(max(0, guessed_picos - others_picos), read.guesses)
        requests = moved_picos = 0
        for first in range(0, len(shares), SHARES_A_BATCH):
            batch = shares[first : first + SHARES_A_BATCH]
            changes = await settlements.correct_guesses(batch)
            requests += len(changes.bookings)
            moved_picos += sum(booking.cost_picos for booking in changes.bookings)
        self.metrics.corrected_guesses.inc(requests)
        _log.warning("guesses_corrected", requests=requests, moved_picos=moved_picos)
        return CorrectedGuesses(requests, moved_picos)

    async def run(self, every_s: float) -> None:
        """Reconcile at this interval until cancelled. All meters run this; one does the work."""

        async def step() -> float:
            return await self.step(every_s)

        await periodic(
            "reconciliation",
            step,
            LOOK_EVERY_S,
            RETRY_S,
            (StoreUnavailable,),
            first_after_s=FIRST_RUN_AFTER_S,
            most_retry_s=MOST_RETRY_S,
            on_outage=lambda _: self.metrics.failed_runs.inc(),
        )

    async def step(self, every_s: float) -> float:
        """Reconcile if it is due, and return the seconds until the next look.

        Raises StoreUnavailable during an outage.
        """
        try:
            await self.reconcile_if_due(every_s)
        except Conflict:
            # Another meter reconciles at this moment.
            return RETRY_S
        await self.show_last()
        return min(max(await self.store.due_in_s(every_s), 0.0), LOOK_EVERY_S)

    async def show_last(self) -> None:
        """Show the figures of the last run, in this meter or another, in the metrics."""
        for reconciled in await self.store.list_page(None, 1):
            self.metrics.show(reconciled)

    async def _ask(self) -> tuple[ProviderTotal | None, str | None]:
        try:
            total = await self._totals.find_total()
        except (ProviderUnavailable, SealBroken) as error:
            _log.warning("reconciliation_without_provider", reason=str(error))
            return None, str(error)
        return total, None if total else "no provider key is set"


def to_report(
    read: BooksRead, total: ProviderTotal | None, problem: str | None, takes_new_baseline: bool
) -> ReconciliationReport:
    """Return the report about the books that were read."""
    baseline = None if takes_new_baseline else read.baseline
    return ReconciliationReport(
        books=read.comparisons,
        failures=read.failures,
        attention=read.attention,
        provider=None if total is None else compare_provider(total, read.cost, baseline),
        provider_problem=problem,
    )


def _tell(reconciled: Reconciled) -> None:
    report = reconciled.report
    _log.info("reconciled", id=reconciled.id, is_ok=report.is_ok)
    if not report.is_ok:
        _log.error(
            "reconciliation_drift",
            id=reconciled.id,
            drift_picos={book: picos for book, picos in report.drifts().items() if picos},
            failures={failure.invariant: failure.count for failure in report.failures},
        )
    if report.attention.stuck_holds:
        _log.error("holds_stuck", holds=report.attention.stuck_holds)
