"""Verifies the ledger from one checkpoint to the next: a day costs what that day wrote.

A checkpoint says that every batch up to it was verified, and seals the sums by account there. Rows
never change, so they are read in chunks, each in a short transaction that ends with a checkpoint.
Only the comparison of accounts with these sums needs one instant, and it reads no history. What is
older than the checkpoint is read again by a verification of the whole books.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meter.ledger.batches import (
    CHUNK_POSTINGS,
    find_chunk,
    read_horizon,
    wait_for_batches,
)
from meter.ledger.verification import Failure
from meter.ledger.whole_books import (
    INVARIANTS,
    ROWS_SINCE,
    SAMPLE_IDS,
    WHOLE_BOOKS,
    check_books,
)
from meter.postgres.pool import PostgresConnection, queries, store_errors

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.ledger")
_FIND_CHECKPOINT: Final = _QUERIES["find_checkpoint"]
_VERIFY_BATCHES: Final = _QUERIES["verify_batches"]
_SEAL_CHECKPOINT: Final = _QUERIES["seal_checkpoint"]
_GET_LAST_BATCH: Final = _QUERIES["get_last_batch"]
_COMPARE_WITH_CHECKPOINT: Final = _QUERIES["compare_with_checkpoint"]

# No chunk, and no comparison, keeps its snapshot for longer.
CHUNK_TIMEOUT_S: Final = 60.0
# The first checkpoint of a ledger reads all of it.
FIRST_TIMEOUT_S: Final = 600.0

# Any number will do, as long as every meter takes the same lock.
_ADVISORY_LOCK: Final = 7_261_994_310_482_117


@dataclass(frozen=True, slots=True)
class Advance:
    """The outcome of one run: what is broken, and how many checkpoints were sealed."""

    failures: tuple[Failure, ...]
    sealed: int


async def advance(connection: PostgresConnection, chunk_postings: int = CHUNK_POSTINGS) -> Advance:
    """Verify what came since the youngest checkpoint, chunk by chunk, and seal each chunk.

    It stops at the first chunk with a failure, where the next run begins again. The caller is in no
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


async def compare(connection: PostgresConnection, last_batch: int) -> tuple[Failure, ...]:
    """Compare accounts and holds with the sealed sums and what came after their last batch.

    `last_batch` was read in the same snapshot.
    """
    rows = await connection.fetch(_COMPARE_WITH_CHECKPOINT, last_batch, timeout=CHUNK_TIMEOUT_S)
    found = [(row["invariant"], row["id"]) for row in rows]
    # Payments and lots are few beside requests, and their rows may be compared all together.
    for invariant in ("payments", "lots"):
        rows = await connection.fetch(INVARIANTS[invariant][1], timeout=CHUNK_TIMEOUT_S)
        found += [(invariant, row["id"]) for row in rows]
    return _failures(found)


def merged(first: tuple[Failure, ...], second: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """Return the failures of two checks; the first stands for an invariant that both name."""
    named = {one.invariant for one in first}
    return (*first, *(one for one in second if one.invariant not in named))


async def _verify_chunk(
    connection: PostgresConnection, horizon: int, chunk_postings: int
) -> tuple[tuple[Failure, ...], bool]:
    """Verify and seal the next chunk; return its failures, and whether nothing was left."""
    last: Record | None = await connection.fetchrow(_FIND_CHECKPOINT, timeout=CHUNK_TIMEOUT_S)
    if last is None:
        return await _seal_first(connection, horizon)
    if not last["is_whole"]:
        return _failures([("chain", f"checkpoint {last['number']}")]), False
    await connection.execute(f"SET LOCAL statement_timeout = '{CHUNK_TIMEOUT_S:.0f}s'")
    await connection.execute(ROWS_SINCE)
    up_to = await find_chunk(connection, last["last_batch"], horizon, chunk_postings)
    # Rows of batches that are not there would be in no chunk: the last one reaches the horizon.
    is_last = up_to is None
    up_to = horizon if is_last else up_to
    if up_to <= last["last_batch"]:
        return (), True
    rows = await connection.fetch(
        _VERIFY_BATCHES, last["last_batch"], up_to, timeout=CHUNK_TIMEOUT_S
    )
    failures = _failures((row["invariant"], row["id"]) for row in rows)
    if not failures:
        await connection.fetchval(_SEAL_CHECKPOINT, up_to, timeout=CHUNK_TIMEOUT_S)
    return failures, is_last


async def _seal_first(
    connection: PostgresConnection, horizon: int
) -> tuple[tuple[Failure, ...], bool]:
    """Verify the whole books once, and seal what they add up to."""
    await connection.execute(f"SET LOCAL statement_timeout = '{FIRST_TIMEOUT_S:.0f}s'")
    await connection.execute(WHOLE_BOOKS)
    failures = (await check_books(connection)).failures
    if not failures:
        await connection.fetchval(_SEAL_CHECKPOINT, horizon, timeout=FIRST_TIMEOUT_S)
    return failures, False


def _failures(found: Iterable[tuple[str, str]]) -> tuple[Failure, ...]:
    by_invariant: dict[str, list[str]] = defaultdict(list)
    for invariant, one in found:
        by_invariant[invariant].append(one)
    return tuple(
        Failure(
            invariant,
            f"{len(ids)} {INVARIANTS[invariant][0]}",
            len(ids),
            tuple(sorted(ids)[:SAMPLE_IDS]),
        )
        for invariant, ids in by_invariant.items()
    )
