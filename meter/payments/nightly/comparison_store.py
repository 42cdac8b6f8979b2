"""Comparisons with Stripe's balance in Postgres, and the rows of our books that they read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from meter.errors import Conflict
from meter.payments.nightly.comparison import (
    BookedRow,
    ComparedKind,
    DayReport,
    Difference,
    Fees,
    OtherMovements,
)
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.payments.nightly")
_TAKE_DAY: Final = _QUERIES["take_day"]
_RELEASE_DAY: Final = _QUERIES["release_day"]
_SAVE: Final = _QUERIES["save_comparison"]
_LIST: Final = _QUERIES["list_comparisons"]
_LIST_DAYS: Final = _QUERIES["list_compared_days"]
_MEASURE: Final = _QUERIES["measure_comparisons"]
_FIND_BOOKED: Final = _QUERIES["find_booked"]
_LIST_BOOKED_IN: Final = _QUERIES["list_booked_in"]
_FIND_OURS: Final = _QUERIES["find_ours"]

# A meter that died while it compared is taken over then.
LEASE: Final = timedelta(minutes=30)
IDS_AT_ONCE: Final = 1_000


class ComparisonRuns(Conflict):
    """A day that a meter compares at this moment."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The report of one day (UTC) in one mode."""

    day: date
    is_live: bool
    compared_at: datetime
    report: DayReport


@dataclass(frozen=True, slots=True)
class OpenDifferences:
    """The differences of recent days that nobody has cleared up, and the last compared day."""

    differences: int
    last_day: date | None


class ComparisonStore:
    """Keeps comparisons. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def take(self, is_live: bool, day: date, again: bool) -> bool:
        """Begin to compare a day; return whether it is ours to do.

        With `again` also a day that was compared before. Raises ComparisonRuns where that runs.
        """
        async with acquire(self._pool) as connection:
            taken = await connection.fetchval(_TAKE_DAY, is_live, day, LEASE, again)
        if taken is None and again:
            raise ComparisonRuns("this day is compared at this moment; try again later")
        return taken is not None

    async def release(self, is_live: bool, day: date) -> None:
        """Let the day be compared again at once: the attempt came to nothing."""
        async with acquire(self._pool) as connection:
            await connection.execute(_RELEASE_DAY, is_live, day)

    async def save(self, is_live: bool, day: date, report: DayReport) -> Comparison:
        """Keep the report of a day, in the place of an earlier one."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(
                _SAVE, is_live, day, report.difference_count, json.dumps(asdict(report))
            )
        assert row is not None
        return _comparison(row)

    async def list_page(self, before: tuple[date, bool] | None, limit: int) -> list[Comparison]:
        """Return reports, latest day first, before the one at `before`."""
        day, is_live = before or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST, day, is_live, limit)
        return [_comparison(row) for row in rows]

    async def compared_days(self, is_live: bool, since: date) -> tuple[date | None, set[date]]:
        """Return the first day that was ever compared, and all that were since a day."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_LIST_DAYS, is_live, since)
        assert row is not None
        return row["first"], set(row["days"])

    async def measure(self, is_live: bool, since: date) -> OpenDifferences:
        """Return the differences of the days since one."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_MEASURE, is_live, since)
        assert row is not None
        return from_row(OpenDifferences, row)

    async def find_booked(self, is_live: bool, causes: Iterable[str]) -> dict[str, BookedRow]:
        """Return our rows with these causes."""
        found: dict[str, BookedRow] = {}
        wanted = list(causes)
        for first in range(0, len(wanted), IDS_AT_ONCE):
            async with acquire(self._pool) as connection:
                rows = await connection.fetch(
                    _FIND_BOOKED, is_live, wanted[first : first + IDS_AT_ONCE]
                )
            found |= {row["cause"]: from_row(BookedRow, row) for row in rows}
        return found

    async def list_booked_in(
        self, is_live: bool, since: datetime, until: datetime, limit: int
    ) -> list[BookedRow]:
        """Return the rows that were written in a period, at most so many."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_BOOKED_IN, is_live, since, until, limit)
        return [from_row(BookedRow, row) for row in rows]

    async def find_ours(
        self,
        is_live: bool,
        payments: Sequence[str],
        purchases: Sequence[UUID],
        customers: Sequence[str],
    ) -> dict[str, str]:
        """Return the accounts of payments, purchases and customers by id; no one else's."""
        found: dict[str, str] = {}
        size = max(len(payments), len(purchases), len(customers))
        for first in range(0, size, IDS_AT_ONCE):
            chunk = slice(first, first + IDS_AT_ONCE)
            async with acquire(self._pool) as connection:
                rows = await connection.fetch(
                    _FIND_OURS, is_live, payments[chunk], purchases[chunk], customers[chunk]
                )
            found |= {row["id"]: row["account_id"] for row in rows}
        return found


def _comparison(row: "Record") -> Comparison:
    return from_row(Comparison, row, report=_report(json.loads(row["report"])))


def _report(members: dict[str, Any]) -> DayReport:
    """Return the report that JSON holds."""
    read = {
        "kinds": [ComparedKind(**one) for one in members["kinds"]],
        "fees": [Fees(**one) for one in members["fees"]],
        "others": [OtherMovements(**one) for one in members["others"]],
        "differences": [Difference(**one) for one in members["differences"]],
    }
    return DayReport(**(members | read))
