"""Reads the books for files: page by page, each page by a short statement of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from meter.exports.export import Export, ExportKind, Place
from meter.exports.horizon import find_horizon
from meter.postgres.pool import PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.exports")
_EXPORT_USAGE: Final = _QUERIES["export_usage"]
_EXPORT_TRANSACTIONS: Final = _QUERIES["export_transactions"]
_EXPORT_PAYMENTS: Final = _QUERIES["export_payments"]
_EXPORT_INVOICES: Final = _QUERIES["export_invoices"]
_NEXT_POSTING: Final = _QUERIES["next_posting"]
_NEXT_ACCOUNT_IDS: Final = _QUERIES["next_account_ids"]

PAGE_ROWS: Final = 500
PAGE_ACCOUNTS: Final = 200
# Connections of the pool that all files of a process together take at most.
PAGES_AT_ONCE: Final = 2
# Positions rise with time but for transactions that overlap. None lasts this long.
_OVERLAP: Final = timedelta(hours=1)


Row = Mapping[str, Any]


class ExportStore:
    """Reads what files contain. Raises StoreUnavailable during an outage.

    A page is read by one statement, so that no snapshot lasts longer, and none while a client
    takes its time. What is written to a period while it is read is in the file or not.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._room = asyncio.Semaphore(PAGES_AT_ONCE)

    async def begin(self, export: Export) -> int:
        """Return the position up to which a file of postings may read without missing one."""
        if export.kind is not ExportKind.TRANSACTIONS:
            return 0
        return await find_horizon(self._pool)

    async def pages(self, export: Export, horizon: int) -> AsyncIterator[list[Row]]:
        """Yield the rows of a file, account by account; `begin` returned the horizon."""
        async for account_id in self._accounts(export):
            key: Place = ()
            if export.after is not None and export.after[0] == account_id:
                key = export.after[1:]
            read = await self._reader(export, account_id, horizon)
            while rows := await read(key):
                yield rows
                if len(rows) < PAGE_ROWS:
                    break
                key = export.place_of(rows[-1])[1:]

    async def _accounts(self, export: Export) -> AsyncIterator[str]:
        if export.account_id is not None:
            yield export.account_id
            return
        last = ""
        if export.after is not None:
            last = export.after[0]
            yield last
        while True:
            rows = await self._fetch(_NEXT_ACCOUNT_IDS, last, PAGE_ACCOUNTS)
            for row in rows:
                last = row["id"]
                yield last
            if len(rows) < PAGE_ACCOUNTS:
                return

    async def _reader(
        self, export: Export, account_id: str, horizon: int
    ) -> Callable[[Place], Awaitable[list[Row]]]:
        """Return a function that reads the page of an account after a key."""
        period = (account_id, export.since, export.until)
        match export.kind:
            case ExportKind.USAGE:

                async def read(key: Place) -> list[Row]:
                    after = (
                        (datetime.fromisoformat(key[0]), UUID(key[1]), int(key[2]))
                        if key
                        else (None, None, None)
                    )
                    return await self._fetch(_EXPORT_USAGE, *period, *after, PAGE_ROWS)

            case ExportKind.PAYMENTS:

                async def read(key: Place) -> list[Row]:
                    after = int(key[0]) if key else 0
                    return await self._fetch(_EXPORT_PAYMENTS, *period, after, PAGE_ROWS)

            case ExportKind.INVOICES:

                async def read(key: Place) -> list[Row]:
                    after = (datetime.fromisoformat(key[0]), key[1]) if key else (None, None)
                    return await self._fetch(_EXPORT_INVOICES, *period, *after, PAGE_ROWS)

            case ExportKind.TRANSACTIONS:
                # Found before, so that no page reads the rows of years outside of the period.
                first = await self._position_at(account_id, export.since - _OVERLAP, horizon)
                last = await self._position_at(account_id, export.until + _OVERLAP, horizon)

                async def read(key: Place) -> list[Row]:
                    after = int(key[0]) if key else first
                    return await self._fetch(
                        _EXPORT_TRANSACTIONS, *period, after, last + PAGE_ROWS, horizon, PAGE_ROWS
                    )

        return read

    async def _position_at(self, account_id: str, instant: datetime, horizon: int) -> int:
        """Return a position of an account's posting right before an instant, to PAGE_ROWS."""
        low, high = 0, horizon
        async with self._room, acquire(self._pool) as connection:
            while high - low > PAGE_ROWS:
                middle = (low + high) // 2
                row = await connection.fetchrow(_NEXT_POSTING, account_id, middle)
                if row is None or row["recorded_at"] >= instant:
                    high = middle
                else:
                    low = middle
        return low

    async def _fetch(self, query: str, *values: object) -> list[Row]:
        async with self._room, acquire(self._pool) as connection:
            return [dict(row) for row in await connection.fetch(query, *values)]
