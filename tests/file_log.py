"""A log on disk that a test writes, and a meter in memory that follows it."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prometheus_client import CollectorRegistry

from meter.clock import ManualClock
from meter.errors import StoreUnavailable
from meter.ingest.batcher import Batcher
from meter.ingest.ending import EntryFacts
from meter.ingest.log_file.files import rotated_name
from meter.ingest.log_file.follower import FileFollower
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position import LogLease, LogPosition
from meter.ingest.log_file.position_store import LogPositionStore
from meter.ingest.log_file.reader import FileReader
from meter.process.crash_points import NoCrashPoints
from meter.usage.usage import Source
from tests.log_lines import LATER

SMALL_CHUNK_BYTES = 1500
SMALL_LINE_BYTES = 4000


class Positions(LogPositionStore):
    """Positions in memory, with leases like the real ones but never by time."""

    def __init__(self) -> None:
        self.position = LogPosition(0, b"", 0)
        self.stamps = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(n) for n in itertools.count())
        self.read_at: datetime | None = None
        self.is_held = False
        self.fails = 0

    async def claim(self, path: str) -> LogLease | None:
        if self.is_held:
            return None
        self.is_held, self.read_at = True, next(self.stamps)
        return LogLease(path, self.position, self.read_at)

    async def save(self, lease: LogLease, position: LogPosition) -> LogLease | None:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        if lease.read_at != self.read_at:
            return None
        self.position, self.read_at = position, next(self.stamps)
        return replace(lease, position=position, read_at=self.read_at)

    async def leave(self, lease: LogLease) -> None:
        self.is_held = self.is_held and lease.read_at != self.read_at


class Settled(Batcher):
    """Remembers what it was given; a repetition changes nothing."""

    def __init__(self) -> None:
        self.arrived: list[UUID] = []
        self.undecided: list[UUID] = []
        self.fails = 0

    async def settle_all(self, entries: Sequence[EntryFacts], source: Source) -> None:
        if self.fails and entries:
            self.fails -= 1
            raise StoreUnavailable("away")
        self.arrived += [UUID(bytes=facts.hold_id) for facts in entries]

    def has_settled(self, facts: EntryFacts) -> bool:
        return False

    def count_repeats(self, number: int) -> None:
        assert not number

    async def note(self, requests: list[UUID]) -> None:
        self.undecided += requests


class Followed:
    """One log, and everything that outlives the meters that follow it one after another."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.positions = Positions()
        self.settled = Settled()
        self.clock = ManualClock(LATER)
        self.registry = CollectorRegistry()
        self.metrics = FileMetrics(self.registry)
        self.follower = self.restart()

    def restart(self) -> FileFollower:
        """A new meter after the old one was killed; its lease is taken to have ended."""
        self.positions.is_held = False
        self.follower = FileFollower(
            self.log,
            FileReader(self.log, SMALL_CHUNK_BYTES, SMALL_LINE_BYTES),
            self.positions,
            self.settled,
            self.settled.note,
            self.metrics,
            self.clock,
            NoCrashPoints(),
        )
        return self.follower

    async def read_all(self) -> None:
        """Follow until there is nothing to do at once."""
        for _ in range(10_000):
            if await self.follower.step():
                return
        raise AssertionError("the follower never comes to an end")

    def write(self, text: bytes) -> None:
        """Append to the current file, which is made if it is not there."""
        with self.log.open("ab") as file:
            file.write(text)

    def rotate(self) -> Path:
        """Rename the current file; a second later by the clock each time."""
        self.clock.advance(1)
        target = rotated_name(self.log, self.clock.now())
        return self.log.rename(target)

    def counted(self, name: str, **labels: str) -> float:
        """The value of a metric of the reading."""
        return self.registry.get_sample_value(f"tollkeeper_access_log_file_{name}", labels) or 0.0
