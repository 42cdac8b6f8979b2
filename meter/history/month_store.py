"""Months of history in Postgres: made before they begin, dropped when nobody keeps them longer."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.history")
_PREPARE_MONTHS: Final = _QUERIES["prepare_months"]
_LOCK_MONTH: Final = _QUERIES["lock_month"]
_DROP_MONTHS: Final = _QUERIES["drop_months"]
_FORGET_RECORDS: Final = _QUERIES["forget_records"]
_LIST_MONTHS: Final = _QUERIES["list_months"]
_LIST_SINKS_BEHIND: Final = _QUERIES["list_sinks_behind"]

# Making and dropping a partition needs its parent alone for a moment, and whoever settles waits
# behind us while we wait. We give up first: before the database looks for deadlocks (1 s), and
# before a settlement gives up.
LOCK_TIMEOUT_MS: Final = 500
# Sealing a month reads all of it.
SEAL_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Month:
    """One month of usage or ledger. `bytes_on_disk` is None once it is dropped."""

    kind: str
    month: date
    bytes_on_disk: int | None
    dropped_at: datetime | None

    @property
    def is_kept(self) -> bool:
        """Return whether its detail is there."""
        return self.dropped_at is None


class HistoryStore:
    """Makes, lists and drops months, and deletes old records.

    Raises StoreUnavailable in an outage, and when the moment that a change needs was not to be had:
    try again later.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def prepare(self, months_ahead: int) -> None:
        """Make sure that this month and so many after it have a place of their own."""
        async with acquire(self._pool) as connection, connection.transaction():
            await _be_patient(connection)
            await connection.execute(_PREPARE_MONTHS, months_ahead)

    async def drop_month(self, kind: str, month: date) -> bool:
        """Seal and drop one month, all before it being dropped; whether that was done now.

        One at a time: while a month is dropped its parents are locked, and sealing the next one
        takes long.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            await _be_patient(connection)
            await connection.execute(_LOCK_MONTH, kind, month)
            dropped = await connection.fetchval(
                _DROP_MONTHS, kind, next_month(month), timeout=SEAL_TIMEOUT_S
            )
        return month in dropped

    async def list_sinks_behind(self, month: date) -> list[str]:
        """Return the sinks that did not take all usage of a month, paused ones included."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_SINKS_BEHIND, month, next_month(month), timeout=SEAL_TIMEOUT_S
            )
        return [row["id"] for row in rows]

    async def forget_records(self, days: int, limit: int) -> int:
        """Delete ended keys, audit lines and conflicts older than so many days; 90 at least.

        Deletes at most `limit` of each kind, and returns how many there were.
        """
        async with acquire(self._pool) as connection:
            forgotten: int = await connection.fetchval(_FORGET_RECORDS, days, limit)
        return forgotten

    async def list_months(self) -> list[Month]:
        """Every month known, oldest first."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_MONTHS)
        return [Month(row["kind"], row["month"], row["bytes"], row["dropped_at"]) for row in rows]


def next_month(month: date) -> date:
    """The first day of the month after this one's."""
    return (month.replace(day=1) + timedelta(days=31)).replace(day=1)


async def _be_patient(connection: PostgresConnection) -> None:
    await connection.execute(
        f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};"
        f" SET LOCAL statement_timeout = '{SEAL_TIMEOUT_S:.0f}s'"
    )
