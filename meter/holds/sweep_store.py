"""Finds and ends holds for the sweep, in Postgres. Raises StoreUnavailable in an outage."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from meter.holds.hold import HoldEnding
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.process.crash_points import CrashPoints

_QUERIES: Final = queries("meter.holds")
_NOTE_UNDECIDED: Final = _QUERIES["note_undecided"]
_FIND_UNDECIDED_HOLDS: Final = _QUERIES["find_undecided_holds"]
_RELEASE_HOLDS: Final = _QUERIES["release_holds"]
_EXPIRE_HOLDS: Final = _QUERIES["expire_holds"]
_FORGET_UNDECIDED: Final = _QUERIES["forget_undecided"]

SWEEP_LIMIT: Final = 500
# Longer than an authz process may be stopped and still place a hold afterwards.
UNDECIDED_KEPT: Final = timedelta(minutes=30)


class SweepStore:
    """Ends holds that no settlement will end. Several meters may sweep at once."""

    def __init__(self, pool: PostgresPool, patience: timedelta, crash_points: CrashPoints) -> None:
        self._pool = pool
        self._patience = patience
        self._crash_points = crash_points

    async def note_undecided(self, request_ids: Sequence[UUID]) -> None:
        """Store requests that ended before a decision reached Envoy."""
        async with acquire(self._pool) as connection:
            await connection.execute(_NOTE_UNDECIDED, list(request_ids))

    async def release_undecided(self) -> int:
        """Release the holds of undecided requests; return the number of holds ended.

        Holds that another transaction keeps locked are left to a later sweep.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            rows = await connection.fetch(_FIND_UNDECIDED_HOLDS, SWEEP_LIMIT)
            if not rows:
                return 0
            released = await connection.fetchrow(
                _RELEASE_HOLDS, [row["id"] for row in rows], HoldEnding.UNDECIDED.value
            )
            self._crash_points.reach("sweep.before_commit")
        assert released is not None
        return int(released["released"])

    async def expire(self) -> int:
        """Make open holds past their limit unknown; return their number."""
        async with acquire(self._pool) as connection, connection.transaction():
            expired: int = await connection.fetchval(_EXPIRE_HOLDS, SWEEP_LIMIT, self._patience)
            self._crash_points.reach("sweep.before_commit")
        return expired

    async def forget_undecided(self) -> None:
        """Delete the oldest undecided requests."""
        async with acquire(self._pool) as connection:
            await connection.execute(_FORGET_UNDECIDED, UNDECIDED_KEPT)
