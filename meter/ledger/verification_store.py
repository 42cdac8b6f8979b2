"""Checks the whole books over one snapshot, with queries that name what contradicts what."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Final

from meter.ledger.verification import (
    BookTotals,
    ChainHead,
    DroppedMonth,
    Failure,
    Verification,
)
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.ledger")
_LOCK_HISTORY: Final = _QUERIES["lock_history"]
_VERIFY_HEAD: Final = _QUERIES["verify_head"]
_LIST_DROPPED_MONTHS: Final = _QUERIES["list_dropped_months"]
_VERIFY_TOTALS: Final = _QUERIES["verify_totals"]

VERIFY_QUERY_TIMEOUT_S: Final = 600.0
SAMPLE_IDS: Final = 10
_WHOLE_BOOKS: Final = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;"
    " SET LOCAL enable_mergejoin = on; SET LOCAL jit = off"
)

# Each query returns the ids of what breaks the invariant, so that an empty answer is a good one.
_INVARIANTS: Final = {
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
    "chain": "batches of the ledger were changed after they were written, or are missing",
}


class VerificationStore:
    """Reads the books as they were at one instant. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def verify(self) -> Verification:
        """Check every invariant; changes nothing and blocks nobody."""
        async with acquire(self._pool) as connection, snapshot(connection):
            return await check_books(connection)


@asynccontextmanager
async def snapshot(connection: PostgresConnection) -> AsyncIterator[None]:
    """The books as they are now, whatever happens meanwhile; long reads are allowed."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(_LOCK_HISTORY)
        # A long ledger takes longer to read than any other statement may take.
        await connection.execute(f"SET LOCAL statement_timeout = '{VERIFY_QUERY_TIMEOUT_S:.0f}s'")
        # Whole books are read here: by key, as a short statement does, it would take for ever.
        await connection.execute(_WHOLE_BOOKS)
        yield


async def check_books(connection: PostgresConnection) -> Verification:
    """Check every invariant in the caller's snapshot."""
    found = [await _check(connection, name) for name in _INVARIANTS]
    head = await connection.fetchrow(_VERIFY_HEAD)
    dropped = await connection.fetch(_LIST_DROPPED_MONTHS)
    return Verification(
        failures=tuple(failure for failure in found if failure),
        totals=await _totals(connection),
        head=None if head is None else ChainHead(head["number"], head["hash"]),
        dropped_months=tuple(DroppedMonth(**dict(row)) for row in dropped),
    )


async def _check(connection: PostgresConnection, invariant: str) -> Failure | None:
    text = f"""
        SELECT count(*) AS broken, (array_agg(id))[1:{SAMPLE_IDS}] AS sample
        FROM ({_QUERIES[f"verify_{invariant}"]}) AS contradictions
    """
    row = await connection.fetchrow(text, timeout=VERIFY_QUERY_TIMEOUT_S)
    assert row is not None
    if not row["broken"]:
        return None
    message = f"{row['broken']} {_INVARIANTS[invariant]}"
    return Failure(invariant, message, row["broken"], tuple(row["sample"]))


async def _totals(connection: PostgresConnection) -> BookTotals:
    row = await connection.fetchrow(_VERIFY_TOTALS, timeout=VERIFY_QUERY_TIMEOUT_S)
    assert row is not None
    return BookTotals(**{field.name: int(row[field.name]) for field in fields(BookTotals)})
