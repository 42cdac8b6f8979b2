"""Follows an access log: whole lines are settled, then the position is saved.

The position is saved after settling, so it is never ahead of the books. After a crash between the
two, the same lines are read again and settle nothing twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.holds.abandoned_check import UndecidedRequest
from meter.ingest.batcher import Batcher
from meter.ingest.ending import EntryFacts
from meter.ingest.log_file.lines import read_line
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position import LogLease, LogPosition
from meter.ingest.log_file.position_store import LogPositionStore
from meter.ingest.log_file.reader import Chunk, FileReader
from meter.process.crash_points import CrashPoints
from meter.process.periodic import periodic
from meter.usage.usage import Source

POLL_S: Final = 0.2
# Lines of the file wait this long, so that the stream is normally first: the repetition in the
# file then costs no query.
STREAM_LEAD_S: Final = 1.0
CLAIM_EVERY_S: Final = 1.0
RENEW_EVERY_S: Final = 1.0
RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 5.0
LEAVE_TIMEOUT_S: Final = 1.0
# The stream and the API share the event loop: after this many lines, they get their turn.
LINES_AT_ONCE: Final = 256
BEFORE_POSITION: Final = "meter.before_position"

NoteUndecided = Callable[[list[UUID]], Awaitable[None]]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Understood:
    """The meaning of the first `lines` lines of a chunk.

    `endings` are to be settled, and `repeats` counts those that are settled already. `wait_s` is
    the time for which the next line is still left to the stream; 0 where none is.
    """

    lines: int = 0
    endings: list[EntryFacts] = field(default_factory=list)
    repeats: int = 0
    undecided: list[UUID] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    wait_s: float = 0.0


class FileFollower:
    """Reads one log while it holds the lease of that log; several meters may have one each.

    `note_undecided` keeps the Envoy request ids of requests that ended without a decision. It may
    raise StoreUnavailable, and is then called again with the same ids. `stream_lead_s` is the time
    that lines are left to the stream; 0 where there is none.
    """

    def __init__(
        self,
        log: Path,
        reader: FileReader,
        positions: LogPositionStore,
        batcher: Batcher,
        note_undecided: NoteUndecided,
        metrics: FileMetrics,
        clock: Clock,
        crash_points: CrashPoints,
        stream_lead_s: float = STREAM_LEAD_S,
    ) -> None:
        self._path = str(log.absolute())
        self._reader = reader
        self._positions = positions
        self._batcher = batcher
        self._note_undecided = note_undecided
        self._metrics = metrics
        self._clock = clock
        self._crash_points = crash_points
        self._stream_lead_s = stream_lead_s
        self._lease: LogLease | None = None
        # Ahead of the saved position by lines that were settled already, for a second at most.
        self._read_to = LogPosition(0, b"", 0)
        self._saved_s = 0.0
        self._caught_up_s = 0.0

    @property
    def position(self) -> LogPosition | None:
        """The position that is saved, up to which all is in the books.

        None while another reader has the log.
        """
        return None if self._lease is None else self._lease.position

    @property
    def lag_s(self) -> float:
        """The seconds for which lines have been waiting without a break; 0 without the lease."""
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
            # Another meter can go on at once. If Postgres is away, it waits for the lease to end.
            lease, self._lease = self._lease, None
            self._metrics.is_reading.set(0)
            if lease is not None:
                try:
                    await asyncio.wait_for(self._positions.leave(lease), LEAVE_TIMEOUT_S)
                except (StoreUnavailable, TimeoutError):
                    _log.info("access_log_file_lease_left_to_end")

    async def step(self) -> float:
        """Read and settle the next piece of the log; return the seconds until the next step.

        Raises StoreUnavailable and OSError; the position is then where it was.
        """
        if self._lease is None:
            self._lease = await self._positions.claim(self._path)
            if self._lease is None:
                return CLAIM_EVERY_S
            self._read_to = self._lease.position
            self._saved_s = self._caught_up_s = self._clock.monotonic_s()
            self._metrics.is_reading.set(1)
            _log.info("access_log_file_followed", offset_bytes=self._lease.position.offset_bytes)
            return 0.0
        chunk = await asyncio.to_thread(self._reader.read, self._read_to)
        understood = await self._understand(chunk)
        await self._settle(understood.endings)
        if understood.undecided:
            await self._note_undecided(understood.undecided)
        has_caught_up = chunk.is_end or understood.wait_s > 0
        if has_caught_up:
            self._caught_up_s = self._clock.monotonic_s()
        await self._move(chunk, understood)
        return max(POLL_S, understood.wait_s) if has_caught_up else 0.0

    async def _understand(self, chunk: Chunk) -> _Understood:
        """Read lines up to the first one that is still left to the stream."""
        understood = _Understood()
        kinds = understood.kinds
        for line in chunk.lines:
            try:
                entry = read_line(line)
            except ValueError:
                kinds["malformed"] += 1
            else:
                match entry.meaning:
                    case EntryFacts() as facts if self._batcher.has_settled(facts):
                        understood.repeats += 1
                        kinds["ending"] += 1
                    case EntryFacts() as facts:
                        age_s = (self._clock.now() - entry.ended_at).total_seconds()
                        # Below zero, Envoy's clock is ahead of ours, and then nothing waits.
                        if 0 <= age_s < self._stream_lead_s:
                            understood.wait_s = self._stream_lead_s - age_s
                            break
                        understood.endings.append(facts)
                        kinds["ending"] += 1
                    case UndecidedRequest(request_id=request_id):
                        understood.undecided.append(request_id)
                        kinds["undecided"] += 1
                    case None:
                        kinds["other"] += 1
                if entry.is_torn:
                    kinds["torn"] += 1
            understood.lines += 1
            if understood.lines % LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._batcher.count_repeats(understood.repeats)
        return understood

    async def _settle(self, endings: list[EntryFacts]) -> None:
        """Wait until the endings are in the books, and renew the lease meanwhile."""
        if not endings:
            return
        settling = asyncio.ensure_future(self._batcher.settle_all(endings, Source.FILE))
        try:
            while not (await asyncio.wait({settling}, timeout=RENEW_EVERY_S))[0]:
                with contextlib.suppress(StoreUnavailable):
                    await self._save(self._read_to)
            settling.result()
        finally:
            settling.cancel()

    async def _move(self, chunk: Chunk, understood: _Understood) -> None:
        """Save the position behind the lines that are settled, or just renew the lease in time.

        Behind lines that were settled already, as with both logs nearly all are, it is saved when
        the lease is renewed: each save is a commit, and reading such lines again costs less.
        """
        if self._lease is None:
            return
        position = chunk.after(understood.lines)
        is_due = self._clock.monotonic_s() - self._saved_s >= RENEW_EVERY_S
        if position == self._read_to:
            if is_due:
                await self._save(position)
            return
        has_news = understood.repeats < understood.lines or chunk.oddity or chunk.restart
        if is_due or has_news or not understood.lines:
            self._crash_points.reach(BEFORE_POSITION)
            await self._save(position)
        self._read_to = position
        for kind, number in understood.kinds.items():
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
        # Once for a chunk, and without the text: it may be anything, a secret too.
        if understood.kinds["malformed"]:
            _log.error(
                "access_log_file_unreadable",
                lines=understood.kinds["malformed"],
                after_offset_bytes=chunk.start.offset_bytes,
            )

    async def _save(self, position: LogPosition) -> None:
        """Save a position and renew the lease, unless another reader has taken over meanwhile."""
        if self._lease is None:
            return
        self._lease = await self._positions.save(self._lease, position)
        self._saved_s = self._clock.monotonic_s()
        if self._lease is None:
            self._metrics.is_reading.set(0)
            _log.warning("access_log_file_taken_over")
