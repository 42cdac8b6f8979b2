"""Follows an access log: whole lines are settled, then the position is saved.

Saved after settling, a position is never ahead of the books; after a crash between the two, the
same lines are read again and settle nothing twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import structlog

from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.holds.abandoned_check import UndecidedRequest
from meter.ingest.log_file.lines import LogLine, read_line
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position import LogLease, LogPosition
from meter.ingest.log_file.reader import Chunk, FileReader
from meter.process.crash_points import CrashPoints
from meter.process.periodic import periodic
from meter.usage.usage import Observation

POLL_S: Final = 0.2
# The stream is normally first, and then the file's line costs no question to Postgres.
STREAM_LEAD_S: Final = 1.0
CLAIM_EVERY_S: Final = 1.0
RENEW_EVERY_S: Final = 1.0
RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 5.0
LEAVE_TIMEOUT_S: Final = 1.0
# The stream and the API share the event loop with the reading of lines.
LINES_AT_ONCE: Final = 64
BEFORE_POSITION: Final = "meter.before_position"

NoteUndecided = Callable[[list[UndecidedRequest]], Awaitable[None]]

_log = structlog.get_logger(__name__)


class Positions(Protocol):
    """Where positions are kept; `meter.ingest.log_file.position_store` has the real one."""

    async def claim(self, path: str) -> LogLease | None: ...

    async def save(self, lease: LogLease, position: LogPosition) -> LogLease | None: ...

    async def leave(self, lease: LogLease) -> None: ...


class Settling(Protocol):
    """What settles; `meter.ingest.batcher.Batcher` does."""

    async def settle_all(self, observations: Sequence[Observation]) -> None: ...


@dataclass(slots=True)
class _Taken:
    """What was understood of a chunk. `wait_s` is how long its next line is still too young."""

    lines: int = 0
    observations: list[Observation] = field(default_factory=list)
    undecided: list[UndecidedRequest] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    wait_s: float = 0.0

    def add(self, line: LogLine) -> None:
        self.kinds["torn"] += line.is_torn
        match line.meaning:
            case Observation():
                self.observations.append(line.meaning)
                self.kinds["ending"] += 1
            case UndecidedRequest():
                self.undecided.append(line.meaning)
                self.kinds["undecided"] += 1
            case None:
                self.kinds["other"] += 1


class FileFollower:
    """One of possibly several readers of a log; it reads while it has the lease."""

    def __init__(
        self,
        log: Path,
        reader: FileReader,
        positions: Positions,
        settling: Settling,
        note_undecided: NoteUndecided,
        metrics: FileMetrics,
        clock: Clock,
        crash_points: CrashPoints,
    ) -> None:
        self._path = str(log.absolute())
        self._reader = reader
        self._positions = positions
        self._settling = settling
        self._note_undecided = note_undecided
        self._metrics = metrics
        self._clock = clock
        self._crash_points = crash_points
        self._lease: LogLease | None = None
        self._saved_s = 0.0
        self._caught_up_s = 0.0

    @property
    def position(self) -> LogPosition | None:
        """Up to where everything is in the books; None while another reader follows the log."""
        return None if self._lease is None else self._lease.position

    @property
    def lag_s(self) -> float:
        """Since when there has always been a line that ought to have been read."""
        if self._lease is None:
            return 0.0
        return max(0.0, self._clock.monotonic_s() - self._caught_up_s)

    async def run(self) -> None:
        """Follow the log until cancelled, through outages of Postgres and of the disk."""
        try:
            await periodic(
                "access_log_file",
                self.step,
                POLL_S,
                RETRY_FIRST_S,
                (StoreUnavailable, OSError),
                most_retry_s=RETRY_MOST_S,
            )
        finally:
            await self._leave()

    async def step(self) -> float:
        """Take the next piece of the log in; returns after how many seconds to come again.

        Raises StoreUnavailable and OSError; the position is then where it was.
        """
        if self._lease is None:
            return await self._claim()
        chunk = await asyncio.to_thread(self._reader.read, self._lease.position)
        taken = await self._understand(chunk)
        await self._settle(taken.observations)
        if taken.undecided:
            await self._note_undecided(taken.undecided)
        if chunk.is_end or taken.wait_s:
            self._caught_up_s = self._clock.monotonic_s()
        await self._move(chunk, taken)
        return max(POLL_S, taken.wait_s) if chunk.is_end or taken.wait_s else 0.0

    async def _claim(self) -> float:
        self._lease = await self._positions.claim(self._path)
        if self._lease is None:
            return CLAIM_EVERY_S
        self._saved_s = self._caught_up_s = self._clock.monotonic_s()
        self._metrics.is_reading.set(1)
        _log.info("access_log_file_followed", offset_bytes=self._lease.position.offset_bytes)
        return 0.0

    async def _understand(self, chunk: Chunk) -> _Taken:
        taken = _Taken()
        for line in chunk.lines:
            try:
                entry = read_line(line)
            except ValueError:
                taken.kinds["malformed"] += 1
            else:
                taken.wait_s = self._youth_s(entry)
                if taken.wait_s:
                    break
                taken.add(entry)
            taken.lines += 1
            if taken.lines % LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return taken

    def _youth_s(self, entry: LogLine) -> float:
        """How long to leave a line to the stream; a clock ahead of ours makes nothing wait."""
        if not isinstance(entry.meaning, Observation):
            return 0.0
        age_s = (self._clock.now() - entry.ended_at).total_seconds()
        return STREAM_LEAD_S - age_s if 0 <= age_s < STREAM_LEAD_S else 0.0

    async def _settle(self, observations: Sequence[Observation]) -> None:
        """Wait until they are in the books, and stay the reader for as long as that takes."""
        settling = asyncio.ensure_future(self._settling.settle_all(observations))
        try:
            while not (await asyncio.wait({settling}, timeout=RENEW_EVERY_S))[0]:
                with contextlib.suppress(StoreUnavailable):
                    await self._save(self.position)
            settling.result()
        finally:
            settling.cancel()

    async def _move(self, chunk: Chunk, taken: _Taken) -> None:
        if self._lease is None:
            return
        position = chunk.after(taken.lines)
        has_moved = position != self._lease.position
        if not has_moved and self._clock.monotonic_s() - self._saved_s < RENEW_EVERY_S:
            return
        if has_moved:
            self._crash_points.reach(BEFORE_POSITION)
        await self._save(position)
        if has_moved:
            self._count(chunk, taken)

    async def _save(self, position: LogPosition | None) -> None:
        """Move there and renew the lease, unless another reader has taken over meanwhile."""
        if self._lease is None or position is None:
            return
        self._lease = await self._positions.save(self._lease, position)
        self._saved_s = self._clock.monotonic_s()
        if self._lease is None:
            self._metrics.is_reading.set(0)
            _log.warning("access_log_file_taken_over")

    def _count(self, chunk: Chunk, taken: _Taken) -> None:
        for kind, number in taken.kinds.items():
            self._metrics.lines.labels(kind).inc(number)
        if chunk.oddity is not None:
            self._metrics.lines.labels(chunk.oddity.value).inc()
        if chunk.restart is not None:
            self._metrics.restarts.labels(chunk.restart.value).inc()
            _log.error(
                "access_log_file_restarted",
                reason=chunk.restart.value,
                offset_bytes=chunk.start.offset_bytes,
            )
        # Once for a chunk, and without the text: it may be anything.
        if taken.kinds["malformed"]:
            _log.error(
                "access_log_file_unreadable",
                lines=taken.kinds["malformed"],
                after_offset_bytes=chunk.start.offset_bytes,
            )

    async def _leave(self) -> None:
        """Let another meter go on at once; one that cannot be told waits for the lease's end."""
        lease, self._lease = self._lease, None
        self._metrics.is_reading.set(0)
        if lease is None:
            return
        try:
            await asyncio.wait_for(self._positions.leave(lease), LEAVE_TIMEOUT_S)
        except (StoreUnavailable, TimeoutError):
            _log.info("access_log_file_lease_left_to_end")
