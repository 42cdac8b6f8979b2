"""Positions of log readers in Postgres, and who may move them.

A lease without a clock of ours: `read_at`, by the database's clock, is renewed by every save, and
each save names the `read_at` that it expects. A reader that was stopped and wakes up finds another
one there, and knows that it lost. Nothing depends on there being one reader only: it saves work.
"""

from dataclasses import replace
from typing import Final

from meter.ingest.log_file.position import LogLease, LogPosition
from meter.postgres.pool import PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.ingest.log_file")
_CLAIM_LOG_POSITION: Final = _QUERIES["claim_log_position"]
_SAVE_LOG_POSITION: Final = _QUERIES["save_log_position"]
_LEAVE_LOG_POSITION: Final = _QUERIES["leave_log_position"]

# A reader that has not been seen for so long is replaced.
LEASE_S: Final = 5.0


class LogPositionStore:
    """Stores the positions of readers of access-log files. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool, lease_s: float = LEASE_S) -> None:
        self._pool = pool
        self._lease_s = lease_s

    async def claim(self, path: str) -> LogLease | None:
        """Become the reader of this log; None while another one is."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_CLAIM_LOG_POSITION, path, self._lease_s)
        if row is None:
            return None
        position = LogPosition(row["inode"], bytes(row["fingerprint"]), row["offset_bytes"])
        return LogLease(path, position, row["read_at"])

    async def save(self, lease: LogLease, position: LogPosition) -> LogLease | None:
        """Move on and renew the lease; None when another reader has taken over meanwhile."""
        async with acquire(self._pool) as connection:
            read_at = await connection.fetchval(
                _SAVE_LOG_POSITION,
                lease.path,
                position.inode,
                position.fingerprint,
                position.offset_bytes,
                lease.read_at,
            )
        return None if read_at is None else replace(lease, position=position, read_at=read_at)

    async def leave(self, lease: LogLease) -> None:
        """Let another reader take over at once."""
        async with acquire(self._pool) as connection:
            await connection.execute(_LEAVE_LOG_POSITION, lease.path, lease.read_at, self._lease_s)
