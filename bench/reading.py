"""`python -m bench.reading`: CPU of the meter for each record that it reads from Envoy's logs.

From the bytes that arrive to the observation that would be settled; nothing is settled. The same
records arrive by the stream, by the file, and by the file after the stream, which is how a meter
that has both logs reads them.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from prometheus_client import CollectorRegistry

from chaos.replayed import message_from_lines
from meter.clock import ManualClock
from meter.ingest.batcher import Batcher
from meter.ingest.log_file.follower import FileFollower
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.reader import FileReader
from meter.ingest.metrics import IngestMetrics
from meter.ingest.stream.server import AccessLogService
from meter.process.crash_points import NoCrashPoints
from meter.settlement.changes import SettlementChanges
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation
from tests.file_log import Positions
from tests.log_lines import LATER, line
from tests.settlements import FakeSettlementStore

RECORDS: Final = 20_000
RECORDS_PER_MESSAGE: Final = 250
ROUNDS: Final = 5


class _NoBooks(FakeSettlementStore):
    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Take the observations, and do nothing."""
        return []


class LogReaders:
    """The reading parts of one meter, in front of books that may be none."""

    def __init__(self, log: Path, books: SettlementStore | None = None) -> None:
        metrics = IngestMetrics(CollectorRegistry())
        self.batcher = Batcher(books or _NoBooks(), metrics)
        self._settling = self.batcher.start()
        self.stream = AccessLogService(self.batcher, metrics)
        self.follower = FileFollower(
            log,
            FileReader(log),
            Positions(),
            self.batcher,
            _note_nothing,
            FileMetrics(CollectorRegistry()),
            ManualClock(LATER),
            NoCrashPoints(),
        )

    async def read_stream(self, messages: Sequence[bytes]) -> None:
        """Take every message, and let what is queued go."""
        for message in messages:
            await self.stream.take(message)
        await self.batcher.drain()

    async def read_file(self) -> None:
        """Follow the log to its end."""
        while not await self.follower.step():
            pass

    async def close(self) -> None:
        """End the settlement of what is queued."""
        self._settling.cancel()
        await asyncio.wait([self._settling])


def measure_reading() -> dict[str, Any]:
    """Return records a second and CPU microseconds of a record, by the way that it arrives."""
    with tempfile.TemporaryDirectory(prefix="tkr-") as folder:
        log = Path(folder) / "access.jsonl"
        lines = [line(uuid4()) for _ in range(RECORDS)]
        log.write_bytes(b"".join(each + b"\n" for each in lines))
        messages = [
            message_from_lines([each.decode() for each in lines[at : at + RECORDS_PER_MESSAGE]])
            for at in range(0, RECORDS, RECORDS_PER_MESSAGE)
        ]
        rounds = [asyncio.run(_one_round(log, messages)) for _ in range(ROUNDS)]
    return {way: _row([each[way] for each in rounds]) for way in rounds[0]}


async def _one_round(log: Path, messages: Sequence[bytes]) -> dict[str, float]:
    both, alone = LogReaders(log), LogReaders(log)
    return {
        "stream": await _cpu_s(lambda: both.read_stream(messages)),
        "file_after_stream": await _cpu_s(both.read_file),
        "file": await _cpu_s(alone.read_file),
    }


async def _cpu_s(work: Callable[[], Awaitable[None]]) -> float:
    began_s = time.process_time()
    await work()
    return time.process_time() - began_s


def _row(spent_s: Sequence[float]) -> dict[str, float]:
    middle_s = statistics.median(spent_s)
    return {
        "records_per_cpu_second": round(RECORDS / middle_s),
        "cpu_us_per_record": round(middle_s / RECORDS * 1e6, 1),
    }


async def _note_nothing(_: object) -> None:
    pass


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_reading(), indent=2) + "\n")
