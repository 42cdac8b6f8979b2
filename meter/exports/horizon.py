"""The horizon: the position up to which every posting and usage record is committed."""

import asyncio
from typing import Final

from meter.errors import RowLocked
from meter.ledger.batches import read_position
from meter.postgres.pool import PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.exports")
_LIST_WRITERS: Final = _QUERIES["list_writers"]

# Settlements take milliseconds. The tries last about a second together.
TRIES: Final = 12
FIRST_PAUSE_S: Final = 0.002
MOST_PAUSE_S: Final = 0.2


async def find_horizon(pool: PostgresPool) -> int:
    """Return a position up to which every record is committed, or never will be.

    Positions are drawn before the commit, so a record with a lesser one may appear later. This
    reads the youngest position, and waits until the transactions that write at that moment have
    ended; none of them waits for this. Raises RowLocked where one takes longer than about a second,
    and StoreUnavailable in an outage.
    """
    # One connection: after a failover, neither positions nor writers would be those of before.
    async with acquire(pool) as connection:
        horizon = await read_position(connection)
        writers = {row[0] for row in await connection.fetch(_LIST_WRITERS)}
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES):
            if not writers:
                return horizon
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_PAUSE_S)
            writers &= {row[0] for row in await connection.fetch(_LIST_WRITERS)}
    raise RowLocked("a transaction that writes to the ledger does not end; try again")
