"""Positions in a real Postgres: one reader at a time, and none who was replaced moves anything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest_asyncio
from prometheus_client import CollectorRegistry

from meter.clock import SystemClock
from meter.ingest.log_file.log_file import AccessLogFile
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position import LogPosition
from meter.ingest.log_file.position_store import LogPositionStore
from meter.postgres.pool import KEYED_SESSION, PostgresPool, open_pool
from meter.process.crash_points import NoCrashPoints
from tests.file_log import Settled
from tests.log_lines import line
from tests.patience import WAIT_S
from tests.servers import Database

LEASE_S = WAIT_S
# Of meters that run: longer than the second after which they renew it.
RUNNING_LEASE_S = 2.0
PATH = "/var/log/access.jsonl"
FURTHER = LogPosition(2**40, b"\x00" * 32, 2**33)


@pytest_asyncio.fixture
async def pool(database: Database) -> AsyncIterator[PostgresPool]:
    opened = await open_pool(database.service_dsn, 4, KEYED_SESSION)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def positions(pool: PostgresPool) -> LogPositionStore:
    return LogPositionStore(pool, LEASE_S)


async def test_the_first_reader_begins_at_nothing(positions: LogPositionStore) -> None:
    lease = await positions.claim(PATH)
    assert lease is not None
    assert lease.position == LogPosition(0, b"", 0)
    assert await positions.claim(PATH) is None
    assert await positions.claim("/another/log") is not None


async def test_a_position_is_kept_for_whoever_comes_next(positions: LogPositionStore) -> None:
    lease = await positions.claim(PATH)
    assert lease is not None
    lease = await positions.save(lease, FURTHER)
    assert lease is not None
    await positions.leave(lease)
    following = await positions.claim(PATH)
    assert following is not None
    assert following.position == FURTHER


async def test_one_who_saves_keeps_the_lease(positions: LogPositionStore) -> None:
    lease = await positions.claim(PATH)
    for _ in range(3):
        assert lease is not None
        renewed = await positions.save(lease, FURTHER)
        assert renewed is not None
        assert renewed.read_at > lease.read_at
        lease = renewed
        assert await positions.claim(PATH) is None


async def test_one_who_was_stopped_is_replaced_and_cannot_move(
    pool: PostgresPool, positions: LogPositionStore
) -> None:
    stopped = await positions.claim(PATH)
    assert stopped is not None
    # To whom any lease has run out.
    successor = await LogPositionStore(pool, 0.0).claim(PATH)
    assert successor is not None
    assert await positions.save(stopped, FURTHER) is None
    await positions.leave(stopped)
    assert await positions.claim(PATH) is None
    assert await positions.save(successor, FURTHER) is not None


async def test_of_many_who_claim_at_once_one_reads(positions: LogPositionStore) -> None:
    leases = await asyncio.gather(*(positions.claim(PATH) for _ in range(12)))
    assert sum(lease is not None for lease in leases) == 1


class TwoMeters:
    """Two meters on one file, as two processes would be."""

    def __init__(self, log: Path, positions: LogPositionStore) -> None:
        self.log = log
        self.settled = Settled()
        self.files = [self._meter(positions) for _ in range(2)]
        self.runs = [asyncio.create_task(file.run()) for file in self.files]

    def _meter(self, positions: LogPositionStore) -> AccessLogFile:
        return AccessLogFile(
            self.log,
            positions,
            self.settled,
            self.settled.note,
            FileMetrics(CollectorRegistry()),
            SystemClock(),
            NoCrashPoints(),
        )

    def write(self, holds: list[UUID]) -> None:
        with self.log.open("ab") as file:
            file.write(b"".join(line(hold) + b"\n" for hold in holds))

    def readers(self) -> list[int]:
        return [at for at, file in enumerate(self.files) if file.status().is_reading]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                if is_so():
                    return
                await asyncio.sleep(0.02)

    async def stop(self, at: int) -> None:
        self.runs[at].cancel()
        await asyncio.gather(self.runs[at], return_exceptions=True)


async def test_another_meter_goes_on_where_the_first_one_left(
    pool: PostgresPool, tmp_path: Path
) -> None:
    meters = TwoMeters(tmp_path / "access.jsonl", LogPositionStore(pool, RUNNING_LEASE_S))
    holds = [uuid4() for _ in range(20)]
    meters.write(holds[:10])
    await meters.until(lambda: meters.settled.arrived == holds[:10])
    (reader,) = meters.readers()
    await meters.stop(reader)
    meters.write(holds[10:])
    # One that is stopped between settling and saving its position leaves lines to be read again.
    await meters.until(lambda: list(dict.fromkeys(meters.settled.arrived)) == holds)
    assert meters.readers() == [1 - reader]
    await meters.stop(1 - reader)


async def test_a_meter_whose_lease_was_taken_waits_its_turn(
    pool: PostgresPool, tmp_path: Path
) -> None:
    """As after SIGSTOP: it wakes up, and finds another `read_at` than its own."""
    meters = TwoMeters(tmp_path / "access.jsonl", LogPositionStore(pool, RUNNING_LEASE_S))
    await meters.until(lambda: bool(meters.readers()))
    await pool.execute("UPDATE log_positions SET read_at = clock_timestamp()")
    await meters.until(lambda: not meters.readers())
    holds = [uuid4()]
    meters.write(holds)
    await meters.until(lambda: len(meters.readers()) == 1)
    await meters.until(lambda: meters.settled.arrived == holds)
    for at in range(2):
        await meters.stop(at)
