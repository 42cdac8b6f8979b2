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
from meter.postgres.pool import PostgresConnection, queries

_QUERIES: Final = queries("meter.ledger")
_LOCK_HISTORY: Final = _QUERIES["lock_history"]
_VERIFY_HEAD: Final = _QUERIES["verify_head"]
_LIST_DROPPED_MONTHS: Final = _QUERIES["list_dropped_months"]
_VERIFY_TOTALS: Final = _QUERIES["verify_totals"]

VERIFY_QUERY_TIMEOUT_S: Final = 600.0
SAMPLE_IDS: Final = 10
# Sessions are set for short statements that find rows by key. Reading whole tables by key would
# never end.
WHOLE_BOOKS: Final = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;"
    " SET LOCAL enable_mergejoin = on; SET LOCAL jit = off"
)
# Rows since a checkpoint are found by index, whatever the planner knows of the sizes of tables.
ROWS_SINCE: Final = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = on;"
    " SET LOCAL enable_mergejoin = on; SET LOCAL plan_cache_mode = force_custom_plan;"
    " SET LOCAL jit = off"
)

# By invariant: what a failure says, and the query that finds it. Each query returns the ids where
# the invariant is broken, so an empty answer is a good one.
INVARIANTS: Final = {
    "postings_balance": ("postings do not sum to zero", _QUERIES["verify_postings_balance"]),
    "entries_belong": (
        "postings are missing, or have entries of another account",
        _QUERIES["verify_entries_belong"],
    ),
    "balances": (
        "users have a balance other than the sum of their ledger entries",
        _QUERIES["verify_balances"],
    ),
    "held": (
        "users have set aside other than the sum of their live holds",
        _QUERIES["verify_held"],
    ),
    "available": (
        "users are below zero by more than their excess postings explain",
        _QUERIES["verify_available"],
    ),
    "one_settlement": (
        "holds have more than one settlement or excess posting",
        _QUERIES["verify_one_settlement"],
    ),
    "charges": (
        "requests have postings that differ from their usage record",
        _QUERIES["verify_charges"],
    ),
    "endings": ("holds and usage records do not match one to one", _QUERIES["verify_endings"]),
    "limits": ("holds are open past their limit, so nobody sweeps", _QUERIES["verify_limits"]),
    "sealed": ("sealed months differ from the ledger", _QUERIES["verify_sealed"]),
    "payments": (
        "payments, refunds or disputes differ from their postings",
        _QUERIES["verify_payments"],
    ),
    "lots": (
        "users or lots have other expiring credit than their balance and postings say",
        _QUERIES["verify_lots"],
    ),
    "chain": (
        "batches of the ledger were changed after they were written, or are missing",
        _QUERIES["verify_chain"],
    ),
}


@asynccontextmanager
async def snapshot(
    connection: PostgresConnection,
    plans: str = WHOLE_BOOKS,
    timeout_s: float = VERIFY_QUERY_TIMEOUT_S,
) -> AsyncIterator[None]:
    """Hold one snapshot of the books during the block, for statements of up to `timeout_s`."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(_LOCK_HISTORY)
        await connection.execute(f"SET LOCAL statement_timeout = '{timeout_s:.0f}s'; {plans}")
        yield


async def check_books(connection: PostgresConnection) -> Verification:
    """Check every invariant in the caller's snapshot."""
    failures = []
    for invariant, (problem, query) in INVARIANTS.items():
        row = await connection.fetchrow(
            f"SELECT count(*) AS broken, (array_agg(id))[1:{SAMPLE_IDS}] AS sample"
            f" FROM ({query}) AS contradictions",
            timeout=VERIFY_QUERY_TIMEOUT_S,
        )
        assert row is not None
        if row["broken"]:
            message = f"{row['broken']} {problem}"
            failures.append(Failure(invariant, message, row["broken"], tuple(row["sample"])))
    head = await connection.fetchrow(_VERIFY_HEAD)
    dropped = await connection.fetch(_LIST_DROPPED_MONTHS)
    totals = await connection.fetchrow(_VERIFY_TOTALS, timeout=VERIFY_QUERY_TIMEOUT_S)
    assert totals is not None
    return Verification(
        failures=tuple(failures),
        totals=BookTotals(**{field.name: int(totals[field.name]) for field in fields(BookTotals)}),
        head=None if head is None else ChainHead(head["number"], head["hash"]),
        dropped_months=tuple(DroppedMonth(**dict(row)) for row in dropped),
    )
