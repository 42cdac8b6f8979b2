"""Streams files: bounded in memory, number and time, and complete only with their last line."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import MeterError
from meter.exports.export import MOST_ROWS, Export, Place
from meter.exports.export_store import ExportStore
from meter.exports.file_formats import FileEncoder

# Files that a process sends at once: to accounts, one each, and to administrators.
MOST_OF_ACCOUNTS: Final = 8
MOST_OF_ADMINISTRATORS: Final = 2
# After so long a file ends with the cursor of what is left. A client that does not read is cut off
# a little later.
MOST_S: Final = 600.0
MOST_STALLED_S: Final = MOST_S + 60.0

_log = structlog.get_logger(__name__)


class TooManyExports(MeterError):
    """As many files are being sent as are allowed at once; the message says which bound it is."""


class ExportSlots:
    """Counts the files that are being sent."""

    def __init__(self) -> None:
        self._accounts: set[str] = set()
        self._administrators = 0

    @contextmanager
    def taken(self, export: Export) -> Iterator[None]:
        """Take a place for a file until the block ends. Raises TooManyExports."""
        if export.is_for_administrators:
            if self._administrators >= MOST_OF_ADMINISTRATORS:
                raise TooManyExports(
                    f"{MOST_OF_ADMINISTRATORS} files are being sent to administrators already; "
                    "wait until one is complete"
                )
            self._administrators += 1
            try:
                yield
            finally:
                self._administrators -= 1
            return
        account_id = export.account_id or ""
        if account_id in self._accounts:
            raise TooManyExports("a file of this account is being sent already; wait for its end")
        if len(self._accounts) >= MOST_OF_ACCOUNTS:
            raise TooManyExports(
                f"{MOST_OF_ACCOUNTS} files of other accounts are being sent already; try again"
            )
        self._accounts.add(account_id)
        try:
            yield
        finally:
            self._accounts.discard(account_id)


class ExportStreams:
    """Turns parts of the books into the bytes of files."""

    def __init__(
        self, store: ExportStore, registry: CollectorRegistry, most_rows: int = MOST_ROWS
    ) -> None:
        self._store = store
        self._most_rows = most_rows
        self.slots = ExportSlots()
        self._running = Gauge(
            "tollkeeper_exports_running", "Files that are being sent now.", registry=registry
        )
        self._files = Counter(
            "tollkeeper_exports",
            "Files by kind and outcome (complete, partial, broken).",
            ("kind", "outcome"),
            registry=registry,
        )

    async def begin(self, export: Export) -> int:
        """Return the horizon of a file before it is sent. Raises StoreUnavailable."""
        return await self._store.begin(export)

    async def chunks(
        self, export: Export, horizon: int, encoder: FileEncoder, cursor: Callable[[Place], str]
    ) -> AsyncIterator[bytes]:
        """Yield a file. `cursor` seals the place after which a later file goes on.

        A file that an outage or its reader cuts short has no last line.
        """
        began_s = time.monotonic()
        outcome, sent = "broken", 0
        self._running.inc()
        try:
            yield encoder.begin()
            next_cursor = None
            async for rows in self._store.pages(export, horizon):
                kept = rows[: self._most_rows - sent]
                sent += len(kept)
                yield encoder.rows(kept)
                if sent >= self._most_rows or time.monotonic() - began_s > MOST_S:
                    next_cursor = cursor(export.place_of(kept[-1]))
                    break
            yield encoder.end(sent, next_cursor)
            outcome = "complete" if next_cursor is None else "partial"
        except MeterError as error:
            _log.warning("export_broken", kind=export.kind.value, rows=sent, reason=str(error))
            raise
        finally:
            self._running.dec()
            self._files.labels(export.kind.value, outcome).inc()


def stalled_after() -> asyncio.Timeout:
    """Return the time limit of one file, for clients that do not read what is sent."""
    return asyncio.timeout(MOST_STALLED_S)
