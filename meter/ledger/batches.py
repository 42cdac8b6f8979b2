"""Reads the batches of the ledger in order, while others write to its chains."""

from typing import Final

from meter.postgres.pool import PostgresConnection, queries

_QUERIES: Final = queries("meter.ledger")
_READ_POSTING_POSITION: Final = _QUERIES["read_posting_position"]
_READ_HORIZON: Final = _QUERIES["read_horizon"]
_WAIT_FOR_CHAIN: Final = _QUERIES["wait_for_chain"]
_NEXT_CHUNK: Final = _QUERIES["next_chunk"]

CHAINS: Final = 32
CHUNK_POSTINGS: Final = 20_000
# No chunk, and no snapshot of a verification, is kept for longer.
CHUNK_TIMEOUT_S: Final = 60.0
# Rows since a batch are found by index, whatever the planner knows of the sizes of tables.
ROWS_SINCE: Final = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = on;"
    " SET LOCAL enable_mergejoin = on; SET LOCAL plan_cache_mode = force_custom_plan;"
    f" SET LOCAL jit = off; SET LOCAL statement_timeout = '{CHUNK_TIMEOUT_S:.0f}s'"
)


async def read_position(connection: PostgresConnection) -> int:
    """Return the youngest position that a posting or usage record has; it may not be committed."""
    position: int = await connection.fetchval(_READ_POSTING_POSITION)
    return position


async def read_horizon(connection: PostgresConnection) -> int:
    """Return the youngest number that a batch has by now; it may not be committed yet."""
    horizon: int = await connection.fetchval(_READ_HORIZON)
    return horizon


async def wait_for_batches(connection: PostgresConnection) -> None:
    """Wait until every batch whose number was read before is committed, or never will be.

    The caller is in no transaction. Raises RowLocked when one of them takes too long.
    """
    # A number is drawn by whoever has a chain. After every chain was free once, nobody writes a
    # batch with a number up to the horizon any more. Each wait is for one writer alone.
    for chain in range(1, CHAINS + 1):
        await connection.execute(_WAIT_FOR_CHAIN, chain)


async def find_chunk(
    connection: PostgresConnection, after: int, horizon: int, postings: int
) -> int | None:
    """Return the last of the batches after a number that have so many postings together.

    None where no batch is left up to the horizon.
    """
    up_to: int | None = await connection.fetchval(_NEXT_CHUNK, after, horizon, postings)
    return up_to
