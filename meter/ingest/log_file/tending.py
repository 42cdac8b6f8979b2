"""Looks after an access log: its size, its reader's lag, and whether Envoy could write it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog

from meter.clock import Clock
from meter.errors import EnvoyUnavailable
from meter.ingest.log_file.files import list_log_files
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position import LogPosition
from meter.ingest.log_file.reader import FileReader
from meter.ingest.log_file.rotation import Bounds, delete_read, is_missing, rotate
from meter.process.periodic import periodic

TEND_EVERY_S: Final = 2.0
LAG_ALARM_S: Final = 30.0
UNREAD_ALARM_BYTES: Final = 64 * 1024 * 1024
STATS: Final = r"^(filesystem\.|server\.uptime$)"
UPTIME: Final = "server.uptime"
WRITE_FAILED: Final = "filesystem.write_failed"
REOPEN_FAILED: Final = "filesystem.reopen_failed"

_log = structlog.get_logger(__name__)


class Followed(Protocol):
    """The reading that is looked after; `meter.ingest.log_file.follower.FileFollower` is one."""

    @property
    def position(self) -> LogPosition | None: ...

    @property
    def lag_s(self) -> float: ...


class Admin(Protocol):
    """Asks Envoy's admin interface; raises EnvoyUnavailable. `EnvoyAdmin` implements it."""

    async def reopen_logs(self) -> None: ...

    async def counters(self, pattern: str) -> Mapping[str, int]: ...


class FileTending:
    """Measures, alarms, rotates and deletes; only the meter that reads the log does so.

    Without `admin` the log is neither rotated nor are Envoy's own counters seen.
    """

    def __init__(
        self,
        log: Path,
        followed: Followed,
        admin: Admin | None,
        bounds: Bounds,
        metrics: FileMetrics,
        clock: Clock,
    ) -> None:
        self._log_path = log
        self._followed = followed
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
            "access_log_file_tending",
            self.tend,
            TEND_EVERY_S,
            TEND_EVERY_S,
            (EnvoyUnavailable, OSError),
            on_outage=lambda _: self._metrics.unwatched.inc(),
        )

    async def tend(self) -> None:
        """Do everything once. Raises EnvoyUnavailable, and OSError from the disk."""
        files = await asyncio.to_thread(list_log_files, self._log_path)
        self._metrics.files.set(len(files))
        self._metrics.bytes.set(sum(file.size_bytes for file in files))
        position = self._followed.position
        await self._watch_lag(position)
        if position is None or self._admin is None:
            return
        # First: a log is not renamed while Envoy cannot be asked to open it anew.
        counters = await self._admin.counters(STATS)
        self._watch_failures(counters)
        await self._rotate(self._admin, counters.get(UPTIME, 0))
        for path in await asyncio.to_thread(delete_read, self._log_path, self._bounds, position):
            _log.info("access_log_file_deleted", name=path.name)

    async def _watch_lag(self, position: LogPosition | None) -> None:
        unread = 0
        if position is not None:
            unread = await asyncio.to_thread(self._reader.unread_bytes, position)
        lag_s = self._followed.lag_s
        self._metrics.unread_bytes.set(unread)
        self._metrics.lag_seconds.set(lag_s)
        was_lagging, self.is_lagging = self.is_lagging, is_late(unread, lag_s)
        if self.is_lagging and not was_lagging:
            _log.error("access_log_file_lags", unread_bytes=unread, lag_s=round(lag_s, 1))
        elif was_lagging and not self.is_lagging:
            _log.info("access_log_file_caught_up")

    def _watch_failures(self, counters: Mapping[str, int]) -> None:
        """Envoy counts from its own start; what it counted before we came counts too."""
        for name, gauge in (
            (WRITE_FAILED, self._metrics.write_failed),
            (REOPEN_FAILED, self._metrics.reopen_failed),
        ):
            now = counters.get(name, 0)
            gauge.set(now)
            if now > self._failures.get(name, 0):
                _log.error("access_log_file_not_written", counter=name, failures=now)
            self._failures[name] = now

    async def _rotate(self, admin: Admin, uptime_s: int) -> None:
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
    """Whether somebody should look why the log is not read."""
    return unread_bytes > UNREAD_ALARM_BYTES or lag_s > LAG_ALARM_S
