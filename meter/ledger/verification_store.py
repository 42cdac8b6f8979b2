"""Verifies the whole books on request."""

import asyncio
import contextlib

from meter.errors import RowLocked
from meter.ledger.checkpoints import advance
from meter.ledger.verification import Verification
from meter.ledger.whole_books import check_books
from meter.postgres.pool import PostgresPool, acquire


class VerificationStore:
    """Reads the whole books in chunks. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        # A verification reads everything; a second one at the same time waits for the first.
        self._one_at_a_time = asyncio.Lock()

    async def verify(self) -> Verification:
        """Check every invariant by reading every row; blocks no writer.

        What came since the youngest checkpoint is sealed before, so that the head that this prints
        anchors it.
        """
        async with self._one_at_a_time, acquire(self._pool) as connection:
            # Whatever this finds is found again below. While a row is locked, no checkpoint is
            # sealed, and that changes no verdict.
            with contextlib.suppress(RowLocked):
                await advance(connection)
            return (await check_books(connection)).verification
