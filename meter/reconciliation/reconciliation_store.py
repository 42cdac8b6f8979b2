"""Reconciliation in Postgres: one run at a time, over one snapshot; reports are kept for ever."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from meter.errors import Conflict
from meter.ledger.batches import CHUNK_TIMEOUT_S
from meter.ledger.checkpoints import (
    advance,
    compare,
    get_last_batch,
    snapshot,
)
from meter.ledger.verification import Failure, failures_from, merged
from meter.ledger.whole_books import SUMS, check_books
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.reconciliation.drift import (
    Attention,
    BookComparison,
    CorrectedGuesses,
    LedgerCost,
    Outside,
    ProviderComparison,
    ProviderTotal,
    ReconciliationReport,
)
from meter.settlement.spreading import Guess

_QUERIES: Final = queries("meter.reconciliation")
_RECONCILE_SAVE: Final = _QUERIES["reconcile_save"]
_RECONCILE_BOOKS: Final = _QUERIES["reconcile_books"]
_RECONCILE_ATTENTION: Final = _QUERIES["reconcile_attention"]
_RECONCILE_COST: Final = _QUERIES["reconcile_cost"]
_RECONCILE_BASELINE: Final = _QUERIES["reconcile_baseline"]
_RECONCILE_SAVE_TOTAL: Final = _QUERIES["reconcile_save_total"]
_RECONCILE_LIST: Final = _QUERIES["reconcile_list"]
_RECONCILE_DUE: Final = _QUERIES["reconcile_due"]
_LIST_GUESSES: Final = _QUERIES["list_guesses"]

# In place of the accounts and their sums: those of the checkpoint are taken.
_NO_SUMS: Final = (None,) * (1 + len(SUMS))
# The youngest charges by policy that one run corrects.
GUESSES_LIMIT: Final = 100_000

# Any number will do, as long as every meter takes the same lock.
_ADVISORY_LOCK: Final = 7_261_994_310_482_116


@dataclass(frozen=True, slots=True)
class Reconciled:
    """A stored report."""

    id: int
    at: datetime
    report: ReconciliationReport


@dataclass(frozen=True, slots=True)
class BooksRead:
    """All that a reconciliation compares, as it was at one instant."""

    comparisons: tuple[BookComparison, ...]
    failures: tuple[Failure, ...]
    attention: Attention
    cost: LedgerCost
    baseline: Outside | None
    guesses: tuple[Guess, ...]


class OpenBooks:
    """The books while one meter reconciles them, under a lock that keeps other meters out."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def now(self) -> datetime:
        """Return the time of the database, by which postings are recorded."""
        moment: datetime = await self._connection.fetchval("SELECT clock_timestamp()")
        return moment

    async def due_in_s(self, every_s: float) -> float:
        """Return the seconds until the next run is due; below zero when it is late."""
        return await _due_in_s(self._connection, every_s)

    async def read(
        self, total: ProviderTotal | None, settled_by: datetime, reads_all: bool
    ) -> BooksRead:
        """Read the books; costs booked after `settled_by` count as recent.

        The rows since the youngest checkpoint are verified in chunks, with `reads_all` every row.
        Then one snapshot compares the books: the sums of the checkpoint stand for the rows before,
        with `reads_all` those that were added up anew.
        """
        failures = (await advance(self._connection)).failures
        checked = await check_books(self._connection) if reads_all else None
        if checked is not None:
            failures = merged(failures, checked.verification.failures)
        async with snapshot(self._connection):
            last_batch = await get_last_batch(self._connection)
            sums: tuple[object, ...] = (last_batch, *_NO_SUMS)
            if checked is not None:
                sums = (checked.last_batch, *checked.sums)
            books = await self._connection.fetch(_RECONCILE_BOOKS, *sums, timeout=CHUNK_TIMEOUT_S)
            contradictions = await compare(self._connection, last_batch)
            failures = merged(failures, failures_from(contradictions))
            cost = await self._connection.fetchrow(
                _RECONCILE_COST, settled_by, last_batch, timeout=CHUNK_TIMEOUT_S
            )
            attention = await self._connection.fetchrow(
                _RECONCILE_ATTENTION, timeout=CHUNK_TIMEOUT_S
            )
            baseline, guesses = None, []
            if total is not None:
                baseline = await self._connection.fetchrow(
                    _RECONCILE_BASELINE, total.provider, total.key_version
                )
                guesses = await self._connection.fetch(
                    _LIST_GUESSES, GUESSES_LIMIT, timeout=CHUNK_TIMEOUT_S
                )
        assert attention is not None
        assert cost is not None
        return BooksRead(
            comparisons=tuple(
                BookComparison(
                    book=row["book"],
                    expected_picos=int(row["expected_picos"]),
                    found_picos=int(row["found_picos"]),
                    drift_picos=int(row["drift_picos"]),
                    differing=row["differing"],
                )
                for row in books
            ),
            failures=failures,
            attention=Attention(**dict(attention)),
            cost=LedgerCost(**{name: int(picos) for name, picos in cost.items()}),
            baseline=None
            if baseline is None
            else Outside(int(baseline["least_picos"]), int(baseline["most_picos"])),
            guesses=tuple(
                Guess(
                    hold_id=row["hold_id"],
                    revision=row["revision"],
                    cost_picos=int(row["cost_picos"]),
                    most_picos=int(row["most_picos"]),
                )
                for row in guesses
            ),
        )

    async def save(self, report: ReconciliationReport) -> Reconciled:
        """Store the report, and the range that follows from the provider's total."""
        async with self._connection.transaction():
            if report.provider is not None and not report.provider.drift_picos:
                await self._connection.execute(
                    _RECONCILE_SAVE_TOTAL,
                    report.provider.total.provider,
                    report.provider.total.key_version,
                    report.provider.total.total_picos,
                    report.provider.cost.ledger_picos,
                    report.provider.outside.least_picos,
                    report.provider.outside.most_picos,
                )
            row = await self._connection.fetchrow(
                _RECONCILE_SAVE, report.is_ok, json.dumps(asdict(report))
            )
        assert row is not None
        return _reconciled(row)


class ReconciliationStore:
    """Reads the books for reconciliations, and stores reports. Raises StoreUnavailable."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenBooks]:
        """Lock the books for one run. Raises Conflict while another meter reconciles."""
        async with acquire(self._pool) as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _ADVISORY_LOCK):
                raise Conflict("a reconciliation is running already")
            try:
                yield OpenBooks(connection)
            except BaseException:
                # It is a lock of the session, so closing the connection releases it in any state.
                connection.terminate()
                raise
            await connection.execute("SELECT pg_advisory_unlock($1)", _ADVISORY_LOCK)

    async def due_in_s(self, every_s: float) -> float:
        """Return the seconds until the next run is due, negative when it is late."""
        async with acquire(self._pool) as connection:
            return await _due_in_s(connection, every_s)

    async def list_page(self, before: int | None, limit: int) -> list[Reconciled]:
        """Return past reconciliations, newest first, before the one with this id."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_RECONCILE_LIST, before, limit)
        return [_reconciled(row) for row in rows]


async def _due_in_s(connection: PostgresConnection, every_s: float) -> float:
    due_in_s: float = await connection.fetchval(_RECONCILE_DUE, every_s)
    return due_in_s


def _reconciled(row: asyncpg.Record) -> Reconciled:
    return Reconciled(row["id"], row["recorded_at"], _report(json.loads(row["report"])))


def _report(fields: dict[str, Any]) -> ReconciliationReport:
    provider = fields["provider"]
    return ReconciliationReport(
        books=tuple(BookComparison(**one) for one in fields["books"]),
        failures=tuple(
            Failure(**{**one, "sample_ids": tuple(one["sample_ids"])}) for one in fields["failures"]
        ),
        attention=Attention(**fields["attention"]),
        provider=provider
        and ProviderComparison(
            total=ProviderTotal(**provider["total"]),
            cost=LedgerCost(**provider["cost"]),
            outside=Outside(**provider["outside"]),
            drift_picos=provider["drift_picos"],
            is_new_baseline=provider["is_new_baseline"],
        ),
        provider_problem=fields["provider_problem"],
        # Reports of before the guesses lack it.
        guesses=CorrectedGuesses(**fields["guesses"]) if fields.get("guesses") else None,
    )
