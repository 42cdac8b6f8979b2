"""Verifies the ledger from one checkpoint to the next: a day costs what that day wrote.

A checkpoint says that every batch up to it was verified, and seals the sums by account there. Rows
never change, so they are read in chunks, each in a short transaction that ends with a checkpoint.
Only the comparison of accounts with these sums needs one instant, and it reads no history. What is
older than the checkpoint is read again by a verification of the whole books.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meter.ledger.batches import (
    CHUNK_POSTINGS,
    CHUNK_TIMEOUT_S,
    ROWS_SINCE,
    find_chunk,
    read_horizon,
    wait_for_batches,
)
from meter.ledger.verification import Failure, failures_from
from meter.postgres.pool import PostgresConnection, queries, store_errors

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.ledger")
_FIND_CHECKPOINT: Final = _QUERIES["find_checkpoint"]
_VERIFY_CHUNK: Final = _QUERIES["verify_chunk"]
_VERIFY_NEW_USAGE: Final = _QUERIES["verify_new_usage"]
_SEAL_CHECKPOINT: Final = _QUERIES["seal_checkpoint"]
_GET_LAST_BATCH: Final = _QUERIES["get_last_batch"]
_LOCK_HISTORY: Final = _QUERIES["lock_history"]
# Payments and lots are few beside requests, and their rows may be compared all together.
_COMPARISONS: Final = (
    _QUERIES["compare_with_checkpoint"],
    _QUERIES["verify_payments"],
    _QUERIES["verify_lots"],
)

# Any number will do, as long as every meter takes the same lock.
_ADVISORY_LOCK: Final = 7_261_994_310_482_117


@dataclass(frozen=True, slots=True)
class Advance:
    """The outcome of one run: what is broken, and how many checkpoints were sealed."""

    failures: tuple[Failure, ...]
    sealed: int


async def advance(connection: PostgresConnection, chunk_postings: int = CHUNK_POSTINGS) -> Advance:
    """Verify what came since the youngest checkpoint, chunk by chunk, and seal each chunk.

    The first checkpoint of a ledger has no batch, and seals what dropped months add up to. It
    stops at the first chunk with a failure, where the next run begins again. The caller is in no
    transaction. Raises StoreUnavailable during an outage, and when a chunk takes too long.
    """
    with store_errors():
        horizon = await read_horizon(connection)
        await wait_for_batches(connection)
        sealed = 0
        while True:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
                failures, is_done = await _verify_chunk(connection, horizon, chunk_postings)
            if failures or is_done:
                return Advance(failures, sealed)
            sealed += 1


async def get_last_batch(connection: PostgresConnection) -> int:
    """Return the last batch that the youngest checkpoint has; 0 without one."""
    last_batch: int = await connection.fetchval(_GET_LAST_BATCH)
    return last_batch


@asynccontextmanager
async def snapshot(connection: PostgresConnection) -> AsyncIterator[None]:
    """Hold one snapshot of the books during the block, for what is younger than a checkpoint.

    Postgres ends the session where the block takes longer than CHUNK_TIMEOUT_S.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        limit = f"SET LOCAL transaction_timeout = '{CHUNK_TIMEOUT_S:.0f}s'"
        await connection.execute(f"{limit}; {ROWS_SINCE}")
        await connection.execute(_LOCK_HISTORY)
        yield


async def compare(connection: PostgresConnection, last_batch: int) -> list[tuple[str, str]]:
    """Compare accounts and holds with the sealed sums and what came after their last batch.

    Returns each broken invariant with an id where it is broken. `last_batch` was read in the same
    snapshot.
    """
    found = []
    for query, arguments in zip(_COMPARISONS, ((last_batch,), (), ()), strict=True):
        rows = await connection.fetch(query, *arguments, timeout=CHUNK_TIMEOUT_S)
        found += [(row["invariant"], row["id"]) for row in rows]
    return found


async def find_broken_checkpoint(connection: PostgresConnection) -> list[tuple[str, str]]:
    """Return the youngest checkpoint where it, or the sums that it sealed, were changed."""
    last = await connection.fetchrow(_FIND_CHECKPOINT, timeout=CHUNK_TIMEOUT_S)
    return [] if last is None or last["is_whole"] else [("chain", f"checkpoint {last['number']}")]


async def _verify_chunk(
    connection: PostgresConnection, horizon: int, chunk_postings: int
) -> tuple[tuple[Failure, ...], bool]:
    """Verify and seal the next chunk; return its failures, and whether nothing was left."""
    await connection.execute(ROWS_SINCE)
    last: Record | None = await connection.fetchrow(_FIND_CHECKPOINT, timeout=CHUNK_TIMEOUT_S)
    if last is None:
        await connection.fetchval(_SEAL_CHECKPOINT, 0, timeout=CHUNK_TIMEOUT_S)
        return (), False
    if not last["is_whole"]:
        return failures_from([("chain", f"checkpoint {last['number']}")]), False
    up_to = await find_chunk(connection, last["last_batch"], horizon, chunk_postings)
    # Rows of batches that are not there would be in no chunk: the last one reaches the horizon.
    is_last = up_to is None
    up_to = horizon if is_last else up_to
    if up_to <= last["last_batch"]:
        return (), True
    chunk = last["last_batch"], up_to
    chains = last["positions"], last["hashes"]
    rows = await connection.fetch(_VERIFY_CHUNK, *chunk, *chains, timeout=CHUNK_TIMEOUT_S)
    rows += await connection.fetch(_VERIFY_NEW_USAGE, *chunk, timeout=CHUNK_TIMEOUT_S)
    failures = failures_from((row["invariant"], row["id"]) for row in rows)
    if not failures:
        await connection.fetchval(_SEAL_CHECKPOINT, up_to, timeout=CHUNK_TIMEOUT_S)
    return failures, is_last
