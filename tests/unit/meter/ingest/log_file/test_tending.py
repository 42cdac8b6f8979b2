"""The access log stays bounded, nothing unread is deleted, and what goes wrong is seen."""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from meter.errors import EnvoyUnavailable
from meter.ingest.log_file.files import list_log_files
from meter.ingest.log_file.rotation import Bounds
from meter.ingest.log_file.tending import FileTending, is_late
from tests.file_log import Followed
from tests.log_lines import line

BOUNDS = Bounds(rotate_at_bytes=2000, kept_files=2, least_uptime_s=60)


class Envoy:
    """An administration interface that opens the log as Envoy does, and fails as told."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.reopened = 0
        self.is_away = False
        self.is_deaf = False
        self.stats: dict[str, int] = {"filesystem.write_failed": 0, "server.uptime": 60}

    async def reopen_logs(self) -> None:
        if self.is_away or self.is_deaf:
            raise EnvoyUnavailable("away")
        self.reopened += 1
        self.log.touch()

    async def counters(self, pattern: str) -> Mapping[str, int]:
        if self.is_away:
            raise EnvoyUnavailable("away")
        return self.stats


class Tended(Followed):
    """A followed log that is also tended."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.envoy = Envoy(log)
        self.tending = FileTending(log, self.follower, self.envoy, BOUNDS, self.metrics, self.clock)

    async def tend(self) -> None:
        self.clock.advance(1)
        await self.tending.tend()

    def names(self) -> list[str]:
        return [file.path.name for file in list_log_files(self.log)]

    def write_lines(self, count: int) -> None:
        self.write(b"".join(line(uuid4()) + b"\n" for _ in range(count)))


@pytest.fixture
async def tended(tmp_path: Path) -> Tended:
    made = Tended(tmp_path / "access.jsonl")
    # A first step makes it the reader of the log.
    await made.follower.step()
    return made


async def test_a_small_log_is_left_alone(tended: Tended) -> None:
    tended.write_lines(1)
    await tended.tend()
    assert tended.names() == ["access.jsonl"]
    assert tended.envoy.reopened == 0


async def test_a_young_envoy_may_stand_beside_one_that_still_writes(tended: Tended) -> None:
    tended.envoy.stats["server.uptime"] = 59
    tended.write_lines(10)
    await tended.tend()
    assert tended.names() == ["access.jsonl"]
    tended.envoy.stats["server.uptime"] = 60
    await tended.tend()
    assert tended.envoy.reopened == 1


async def test_a_large_log_is_renamed_and_opened_anew(tended: Tended) -> None:
    tended.write_lines(5)
    await tended.tend()
    assert len(tended.names()) == 2
    assert tended.envoy.reopened == 1
    assert tended.counted("rotations_total") == 1
    tended.write_lines(1)
    await tended.read_all()
    assert len(tended.settled.arrived) == 6


async def test_what_was_read_is_deleted_but_for_the_youngest(tended: Tended) -> None:
    for _ in range(6):
        tended.write_lines(5)
        await tended.read_all()
        await tended.tend()
    await tended.read_all()
    await tended.tend()
    assert len(tended.names()) == 1 + BOUNDS.kept_files
    assert len(set(tended.settled.arrived)) == 30
    assert tended.counted("files") == 1 + BOUNDS.kept_files


@pytest.mark.parametrize("has_begun", [True, False])
async def test_what_was_not_read_is_never_deleted(tended: Tended, has_begun: bool) -> None:
    tended.write_lines(5)
    if has_begun:
        await tended.read_all()
    for _ in range(6):
        await tended.tend()
        tended.write_lines(5)
    assert len(tended.names()) == 7
    await tended.read_all()
    assert len(set(tended.settled.arrived)) == 35


async def test_what_others_rotated_is_not_ours_to_delete(tended: Tended) -> None:
    for number in (1, 2, 3):
        tended.log.with_name(f"access.jsonl.{number}").write_bytes(b"{}\n")
    tended.write_lines(1)
    await tended.read_all()
    await tended.tend()
    assert len(tended.names()) == 4


async def test_nothing_is_renamed_while_envoy_is_away(tended: Tended) -> None:
    tended.write_lines(5)
    tended.envoy.is_away = True
    with pytest.raises(EnvoyUnavailable):
        await tended.tend()
    assert tended.names() == ["access.jsonl"]


async def test_a_rotation_that_was_cut_short_is_ended(tended: Tended) -> None:
    tended.write_lines(5)
    tended.envoy.is_deaf = True
    with pytest.raises(EnvoyUnavailable):
        await tended.tend()
    assert not tended.log.exists()
    tended.envoy.is_deaf = False
    await tended.tend()
    assert tended.log.exists()
    assert tended.counted("rotations_total") == 1


@pytest.mark.parametrize("has_rotated", [True, False])
async def test_a_log_that_was_deleted_is_opened_anew_and_that_is_said_once(
    tended: Tended, capsys: pytest.CaptureFixture[str], has_rotated: bool
) -> None:
    tended.write_lines(1)
    await tended.read_all()
    if has_rotated:
        tended.log.with_name("access.jsonl.1").write_bytes(b"{}\n")
    tended.log.unlink()
    tended.envoy.is_deaf = True
    for _ in range(2):
        with pytest.raises(EnvoyUnavailable):
            await tended.tend()
    tended.envoy.is_deaf = False
    await tended.tend()
    await tended.tend()
    assert tended.envoy.reopened == 1
    assert capsys.readouterr().out.count("access_log_file_missing") == 1
    tended.write_lines(1)
    await tended.read_all()
    assert len(tended.settled.arrived) == 2


async def test_a_meter_that_does_not_read_does_not_rotate(tended: Tended) -> None:
    tended.write_lines(5)
    await tended.tending.tend()
    tended.restart()
    await tended.read_all()
    tended.write_lines(5)
    waiting = FileTending(
        tended.log, tended.restart(), tended.envoy, BOUNDS, tended.metrics, tended.clock
    )
    before = tended.names()
    await waiting.tend()
    assert tended.names() == before


async def test_the_clock_may_stand_still(tended: Tended) -> None:
    for _ in range(3):
        tended.write_lines(5)
        await tended.tending.tend()
    await tended.read_all()
    assert len(set(tended.settled.arrived)) == 15


async def test_lines_that_envoy_could_not_write_are_alarmed(
    tended: Tended, capsys: pytest.CaptureFixture[str]
) -> None:
    for failures, is_alarmed in ((0, 0), (3, 1), (3, 0), (5, 1), (1, 0), (2, 1)):
        tended.envoy.stats["filesystem.write_failed"] = failures
        await tended.tend()
        assert tended.counted("write_failed") == failures
        assert capsys.readouterr().out.count("access_log_file_not_written") == is_alarmed


async def test_a_lag_is_alarmed_once_and_its_end_said(
    tended: Tended, capsys: pytest.CaptureFixture[str]
) -> None:
    tended.write_lines(1)
    await tended.read_all()
    await tended.tend()
    assert tended.counted("unread_bytes") == 0
    tended.write_lines(1)
    tended.clock.advance(60)
    await tended.tend()
    await tended.tend()
    assert tended.counted("lag_seconds") > 60
    assert tended.counted("unread_bytes") > 0
    assert tended.tending.is_lagging
    await tended.read_all()
    await tended.tend()
    said = capsys.readouterr().out
    assert said.count("access_log_file_lags") == said.count("access_log_file_caught_up") == 1


def test_many_unread_bytes_are_a_lag_too() -> None:
    assert is_late(2**30, 0.0)
    assert is_late(0, 31.0)
    assert not is_late(2**20, 29.0)
