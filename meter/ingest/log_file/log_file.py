"""Envoy's access-log file as the second way to a settlement: followed, bounded, looked after."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from meter.clock import Clock
from meter.ingest.log_file.follower import FileFollower, NoteUndecided, Positions, Settling
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.reader import FileReader
from meter.ingest.log_file.rotation import Bounds
from meter.ingest.log_file.tending import Admin, FileTending
from meter.process.crash_points import CrashPoints


@dataclass(frozen=True, slots=True)
class FileStanding:
    """How the reading of the log stands. `reason` is a sentence where something is wrong."""

    is_reading: bool
    lag_s: float
    reason: str | None


class AccessLogFile:
    """One meter's part in reading the log at `log`. Several meters may have one each.

    `settling` is the batcher that the stream feeds too. `note_undecided` keeps requests that ended
    without a decision; it may raise StoreUnavailable, and is then called again with the same ones.
    """

    def __init__(
        self,
        log: Path,
        positions: Positions,
        settling: Settling,
        note_undecided: NoteUndecided,
        metrics: FileMetrics,
        clock: Clock,
        crash_points: CrashPoints,
        admin: Admin | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._follower = FileFollower(
            log, FileReader(log), positions, settling, note_undecided, metrics, clock, crash_points
        )
        self._tending = FileTending(log, self._follower, admin, bounds or Bounds(), metrics, clock)

    async def run(self) -> None:
        """Read and tend for ever. Cancelled, it lets another meter take over at once."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run(), name="access-log file")
            tasks.create_task(self._tending.run(), name="access-log file tending")

    def standing(self) -> FileStanding:
        """For readiness: never a reason to take a meter out, its stream works without."""
        reason = "the access-log file is read too slowly" if self._tending.is_lagging else None
        return FileStanding(self._follower.position is not None, self._follower.lag_s, reason)
