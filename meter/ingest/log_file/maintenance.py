"""Looks after an access log: its size, its reader's lag, and whether Envoy could write it."""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from meter.clock import Clock
from meter.errors import EnvoyUnavailable
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ingest.log_file.files import list_log_files
from meter.ingest.log_file.follower import FileFollower
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.reader import FileReader
from meter.ingest.log_file.rotation import RotationBounds, delete_read, is_missing, rotate
from meter.process.periodic import periodic

MAINTAIN_EVERY_S: Final = 2.0
LAG_ALARM_S: Final = 30.0
UNREAD_ALARM_BYTES: Final = 64 * 1024 * 1024
STATS: Final = r"^(filesystem\.|server\.uptime$)"
UPTIME: Final = "server.uptime"
WRITE_FAILED: Final = "filesystem.write_failed"
REOPEN_FAILED: Final = "filesystem.reopen_failed"

_log = structlog.get_logger(__name__)


class FileMaintenance:
    """Measures, alarms, rotates and deletes; only the meter that reads the log does so.

    Without `admin` the log is not rotated, and Envoy's own counters are not seen.
    """

    def __init__(
        self,
        log: Path,
        follower: FileFollower,
        admin: EnvoyAdmin | None,
        bounds: RotationBounds,
        metrics: FileMetrics,
        clock: Clock,
    ) -> None:
        self._log_path = log
        self._follower = follower
        self._admin = admin
        self._bounds = bounds
        self._metrics = metrics
        self._clock = clock
        self._reader = FileReader(log)
        self._failures: dict[str, int] = {}
        self._was_missing = False
        self.is_lagging = False

    async def run(self) -> None:
        """Look after the log until cancelled; a step that failed is tried again."""
        await periodic(
            "access_log_file_maintenance",
            self.maintain,
            MAINTAIN_EVERY_S,
            MAINTAIN_EVERY_S,
            (EnvoyUnavailable, OSError),
            on_outage=lambda _: self._metrics.maintenance_failures.inc(),
        )

    async def maintain(self) -> None:
        """Do everything once. Raises EnvoyUnavailable, and OSError from the disk."""
        files = await asyncio.to_thread(list_log_files, self._log_path)
        self._metrics.files.set(len(files))
        self._metrics.bytes.set(sum(file.size_bytes for file in files))
        position = self._follower.position
        unread = 0
        if position is not None:
            unread = await asyncio.to_thread(self._reader.unread_bytes, position)
        self._metrics.unread_bytes.set(unread)
        self._metrics.lag_seconds.set(self._follower.lag_s)
        was_lagging, self.is_lagging = self.is_lagging, is_late(unread, self._follower.lag_s)
        if self.is_lagging and not was_lagging:
            _log.error(
                "access_log_file_lags", unread_bytes=unread, lag_s=round(self._follower.lag_s, 1)
            )
        elif was_lagging and not self.is_lagging:
            _log.info("access_log_file_caught_up")
        if position is None or self._admin is None:
            return
        # First: a log is not renamed while Envoy cannot be asked to open it anew.
        counters = await self._admin.counters(STATS)
        # Envoy counts from its own start; failures before this meter came are reported as well.
        for name, gauge in (
            (WRITE_FAILED, self._metrics.write_failed),
            (REOPEN_FAILED, self._metrics.reopen_failed),
        ):
            now = counters.get(name, 0)
            gauge.set(now)
            if now > self._failures.get(name, 0):
                _log.error("access_log_file_not_written", counter=name, failures=now)
            self._failures[name] = now
        await self._rotate(self._admin, counters.get(UPTIME, 0))
        for path in await asyncio.to_thread(delete_read, self._log_path, self._bounds, position):
            _log.info("access_log_file_deleted", name=path.name)

    async def _rotate(self, admin: EnvoyAdmin, uptime_s: int) -> None:
        """Rename a log that is too large, and have Envoy open a log that is not there."""
        was_missing = self._was_missing
        self._was_missing = await asyncio.to_thread(is_missing, self._log_path)
        if self._was_missing:
            if not was_missing:
                _log.error("access_log_file_missing")
            await admin.reopen_logs()
            return
        if uptime_s < self._bounds.least_uptime_s:
            return
        now = self._clock.now()
        target = await asyncio.to_thread(rotate, self._log_path, self._bounds, now)
        if target is not None:
            self._metrics.rotations.inc()
            _log.info("access_log_file_rotated", name=target.name)
            await admin.reopen_logs()


def is_late(unread_bytes: int, lag_s: float) -> bool:
    """Return True when the reading of the log is so late that people should look at it."""
    return unread_bytes > UNREAD_ALARM_BYTES or lag_s > LAG_ALARM_S
