"""The simulator's own bill: an append-only file, one JSON object a line.

A row is on disk (written and fsynced) before the first byte of the answer that it bills
leaves. Rows that arrive while a sync is running share the next one, so that many
concurrent requests cost few syncs. A last line without its newline was never synced,
hence never answered: it is cut off when the bill is opened.
"""

import asyncio
import fcntl
import json
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import cast

from tollkeeper.simulator.pricing import PICOS_PER_USD, to_usd

ROWS_KEPT = 500_000
"""Rows that can be looked up; older ones stay in the file and in the total."""
FILE_MODE = 0o600


class BillError(Exception):
    """The bill cannot be opened or read; the message says why."""


@dataclass(frozen=True, slots=True)
class BillRow:
    """One billed request. ``cost`` is a decimal string in US dollars, ``at`` RFC 3339 UTC.

    What a restarted simulator has to know of the request is here too: its trace, and whether
    it is reported to the webhook and known to ``GET /generation``, and when. ``request_id`` is
    the request's own header ``x-request-id``, ``key_sha256`` the digest of the provider key
    that pays, in hexadecimal.
    """

    generation_id: str
    model: str
    cost: str
    at: str
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    is_streamed: bool
    finish_reason: str
    cached_tokens: int = 0
    trace_id: str | None = None
    trace_metadata: dict[str, str] = field(default_factory=dict)
    has_report: bool = True
    has_record: bool = True
    request_id: str | None = None
    key_sha256: str = ""
    record_delay_ms: int = 0
    record_zero_ms: int = 0

    @property
    def cost_picos(self) -> int:
        return int(Decimal(self.cost) * PICOS_PER_USD)

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


class Bill:
    """Appends rows durably and answers from those already written."""

    def __init__(self, path: Path, sync: Callable[[int], None] = os.fsync) -> None:
        """Open ``path``, creating it, and read what it holds.

        Raises BillError when another process holds the bill or a line is not a row.
        """
        self._path = path
        self._sync = sync
        self._rows: dict[str, BillRow] = {}
        self._order: deque[str] = deque()
        self._waiting: list[tuple[BillRow, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self.row_count = 0
        self.total_picos = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise BillError(f"{path} is in use by another simulator") from None
        # Make the file's name itself durable.
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self._file = file
        self._length_bytes = self._load()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bill")

    @property
    def total_usd(self) -> str:
        return to_usd(self.total_picos)

    def rows(self) -> list[BillRow]:
        """The rows kept in memory, oldest first."""
        return list(self._rows.values())

    def find(self, generation_id: str) -> BillRow | None:
        """The row of a generation, or None when it was never billed or is no longer kept."""
        return self._rows.get(generation_id)

    async def append(self, row: BillRow) -> None:
        """Return once the row is on disk. Raises OSError, with nothing billed, if it cannot be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await future

    async def close(self) -> None:
        """Write what is waiting, then let go of the file."""
        if self._flushing is not None:
            await self._flushing
        self._executor.shutdown()
        os.close(self._file)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            lines = b"".join(row.to_line() for row, _ in batch)
            try:
                await loop.run_in_executor(self._executor, self._write, lines)
            except OSError as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for row, future in batch:
                self._remember(row)
                if not future.done():
                    future.set_result(None)
        self._flushing = None

    def _write(self, lines: bytes) -> None:
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._sync(self._file)
        except OSError:
            # Half a batch must not stay: its requests are about to be refused.
            os.ftruncate(self._file, self._length_bytes)
            raise
        self._length_bytes += len(lines)

    def _remember(self, row: BillRow) -> None:
        self._rows[row.generation_id] = row
        self._order.append(row.generation_id)
        self.row_count += 1
        self.total_picos += row.cost_picos
        if len(self._order) > ROWS_KEPT:
            del self._rows[self._order.popleft()]

    def _load(self) -> int:
        """Read every whole line, cut off a partial last one, return the length in bytes."""
        length_bytes = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    fields = cast(dict[str, object], json.loads(line))
                    row = BillRow(**fields)  # type: ignore[arg-type]  # its cost is read below
                    Decimal(row.cost)
                except (ValueError, TypeError, ArithmeticError):
                    # A bill with holes proves nothing.
                    raise BillError(
                        f"line {number} of {self._path} is not a row of the bill"
                    ) from None
                self._remember(row)
                length_bytes += len(line)
        os.ftruncate(self._file, length_bytes)
        self._sync(self._file)
        return length_bytes
