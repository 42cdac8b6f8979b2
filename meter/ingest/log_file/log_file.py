"""Envoy's access-log file as a way to a settlement: followed, bounded, looked after."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from meter.clock import Clock
from meter.ingest.batcher import Batcher
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ingest.log_file.follower import STREAM_LEAD_S, FileFollower, NoteUndecided
from meter.ingest.log_file.maintenance import FileMaintenance
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position_store import LogPositionStore
from meter.ingest.log_file.reader import FileReader
from meter.ingest.log_file.rotation import RotationBounds
from meter.process.crash_points import CrashPoints


@dataclass(frozen=True, slots=True)
class LogFileStatus:
    """The state of the reading of the log. `reason` is a sentence where something is wrong."""

    is_reading: bool
    lag_s: float
    reason: str | None


class AccessLogFile:
    """One meter's part in reading the log at `log`. Several meters may have one each.

    `batcher` is the one that the stream feeds too. `note_undecided` and
    `stream_lead_s` are described at FileFollower.
    Without `admin` the log is never rotated.
    """

    def __init__(
        self,
        log: Path,
        positions: LogPositionStore,
        batcher: Batcher,
        note_undecided: NoteUndecided,
        metrics: FileMetrics,
        clock: Clock,
        crash_points: CrashPoints,
        admin: EnvoyAdmin | None = None,
        bounds: RotationBounds | None = None,
        stream_lead_s: float = STREAM_LEAD_S,
    ) -> None:
        self._follower = FileFollower(
            log,
            FileReader(log),
            positions,
            batcher,
            note_undecided,
            metrics,
            clock,
            crash_points,
            stream_lead_s,
        )
        self._maintenance = FileMaintenance(
            log, self._follower, admin, bounds or RotationBounds(), metrics, clock
        )

    async def run(self) -> None:
        """Read and look after the log until cancelled; another meter can then go on at once."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run(), name="access-log file")
            tasks.create_task(self._maintenance.run(), name="access-log file maintenance")

    def status(self) -> LogFileStatus:
        """Return the state of the reading. A meter works without it, from the stream."""
        reason = "the access-log file is read too slowly" if self._maintenance.is_lagging else None
        return LogFileStatus(self._follower.position is not None, self._follower.lag_s, reason)
