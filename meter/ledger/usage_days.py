"""Adds settled requests to the totals of usage by day, each exactly once.

Settlements do not wait for this: a task reads the batches that came since the last time, in the
order of their numbers, and moves a position in the same transaction. An answer about usage adds
the settlements after this position. Usage records that are no ordinary settlements are added by
the transaction that writes them: see the trigger of `usage_rows` in the migrations. A month that
is dropped is added before.
"""

from typing import Final, NoReturn

from meter.errors import StoreUnavailable
from meter.ledger.batches import (
    CHUNK_POSTINGS,
    ROWS_SINCE,
    find_chunk,
    read_horizon,
    read_position,
    wait_for_batches,
)
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.process.periodic import periodic

_QUERIES: Final = queries("meter.ledger")
_GET_USAGE_POSITION: Final = _QUERIES["get_usage_position"]
_LOCK_USAGE_POSITION: Final = _QUERIES["lock_usage_position"]
_ADD_UP_SETTLEMENTS: Final = _QUERIES["add_up_settlements"]
_MOVE_USAGE_POSITION: Final = _QUERIES["move_usage_position"]

# An answer about usage reads the settlements of this time one by one.
EVERY_S: Final = 10.0


class UsageDays:
    """The periodic task; several meters may have it at once."""

    def __init__(self, pool: PostgresPool, chunk_postings: int = CHUNK_POSTINGS) -> None:
        self._pool = pool
        self._chunk_postings = chunk_postings

    async def run(self) -> NoReturn:
        """Add up until cancelled, through outages of Postgres."""
        await periodic("usage_days", self.add_up, EVERY_S, EVERY_S, (StoreUnavailable,))

    async def add_up(self) -> None:
        """Add every settlement that is committed by now, chunk by chunk.

        Does nothing while another meter does it. Raises StoreUnavailable during an outage, and
        RowLocked while a writer keeps a chain of the ledger for long.
        """
        async with acquire(self._pool) as connection:
            # Before the horizon: every settlement of a later batch has a position above this one.
            seq = await read_position(connection)
            horizon = await read_horizon(connection)
            if horizon == await connection.fetchval(_GET_USAGE_POSITION):
                return
            await wait_for_batches(connection)
            is_last = False
            while not is_last:
                async with connection.transaction():
                    after = await connection.fetchval(_LOCK_USAGE_POSITION)
                    if after is None or after >= horizon:
                        return
                    await connection.execute(ROWS_SINCE)
                    up_to = await find_chunk(connection, after, horizon, self._chunk_postings)
                    is_last = up_to is None
                    if up_to is not None:
                        await connection.execute(_ADD_UP_SETTLEMENTS, after, up_to)
                    await connection.execute(
                        _MOVE_USAGE_POSITION,
                        horizon if up_to is None else up_to,
                        seq if up_to is None else None,
                    )
