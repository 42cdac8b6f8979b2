"""The access log stays bounded, nothing unread is deleted, and what goes wrong is seen."""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from meter.errors import EnvoyUnavailable
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ingest.log_file.files import list_log_files
from meter.ingest.log_file.maintenance import FileMaintenance, is_late
from meter.ingest.log_file.rotation import RotationBounds
from tests.file_log import Followed
from tests.log_lines import line

BOUNDS = RotationBounds(rotate_at_bytes=2000, kept_files=2, least_uptime_s=60)


class Envoy(EnvoyAdmin):
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


class Maintained(Followed):
    """A followed log that is also maintained."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.envoy = Envoy(log)
        self.maintenance = FileMaintenance(
            log, self.follower, self.envoy, BOUNDS, self.metrics, self.clock
        )

    async def maintain(self) -> None:
        self.clock.advance(1)
        await self.maintenance.maintain()

    def names(self) -> list[str]:
        return [file.path.name for file in list_log_files(self.log)]

    def write_lines(self, count: int) -> None:
        self.write(b"".join(line(uuid4()) + b"\n" for _ in range(count)))


@pytest.fixture
async def maintained(tmp_path: Path) -> Maintained:
    made = Maintained(tmp_path / "access.jsonl")
    # A first step makes it the reader of the log.
    await made.follower.step()
    return made


async def test_a_small_log_is_left_alone(maintained: Maintained) -> None:
    maintained.write_lines(1)
    await maintained.maintain()
    assert maintained.names() == ["access.jsonl"]
    assert maintained.envoy.reopened == 0


async def test_a_young_envoy_may_stand_beside_one_that_still_writes(maintained: Maintained) -> None:
    maintained.envoy.stats["server.uptime"] = 59
    maintained.write_lines(10)
    await maintained.maintain()
    assert maintained.names() == ["access.jsonl"]
    maintained.envoy.stats["server.uptime"] = 60
    await maintained.maintain()
    assert maintained.envoy.reopened == 1


async def test_a_large_log_is_renamed_and_opened_anew(maintained: Maintained) -> None:
    maintained.write_lines(5)
    await maintained.maintain()
    assert len(maintained.names()) == 2
    assert maintained.envoy.reopened == 1
    assert maintained.counted("rotations_total") == 1
    maintained.write_lines(1)
    await maintained.read_all()
    assert len(maintained.settled.arrived) == 6


async def test_what_was_read_is_deleted_but_for_the_youngest(maintained: Maintained) -> None:
    for _ in range(6):
        maintained.write_lines(5)
        await maintained.read_all()
        await maintained.maintain()
    await maintained.read_all()
    await maintained.maintain()
    assert len(maintained.names()) == 1 + BOUNDS.kept_files
    assert len(set(maintained.settled.arrived)) == 30
    assert maintained.counted("files") == 1 + BOUNDS.kept_files


@pytest.mark.parametrize("has_begun", [True, False])
async def test_what_was_not_read_is_never_deleted(maintained: Maintained, has_begun: bool) -> None:
    maintained.write_lines(5)
    if has_begun:
        await maintained.read_all()
    for _ in range(6):
        await maintained.maintain()
        maintained.write_lines(5)
    assert len(maintained.names()) == 7
    await maintained.read_all()
    assert len(set(maintained.settled.arrived)) == 35


async def test_what_others_rotated_is_not_ours_to_delete(maintained: Maintained) -> None:
    for number in (1, 2, 3):
        maintained.log.with_name(f"access.jsonl.{number}").write_bytes(b"{}\n")
    maintained.write_lines(1)
    await maintained.read_all()
    await maintained.maintain()
    assert len(maintained.names()) == 4


async def test_nothing_is_renamed_while_envoy_is_away(maintained: Maintained) -> None:
    maintained.write_lines(5)
    maintained.envoy.is_away = True
    with pytest.raises(EnvoyUnavailable):
        await maintained.maintain()
    assert maintained.names() == ["access.jsonl"]


async def test_a_rotation_that_was_cut_short_is_ended(maintained: Maintained) -> None:
    maintained.write_lines(5)
    maintained.envoy.is_deaf = True
    with pytest.raises(EnvoyUnavailable):
        await maintained.maintain()
    assert not maintained.log.exists()
    maintained.envoy.is_deaf = False
    await maintained.maintain()
    assert maintained.log.exists()
    assert maintained.counted("rotations_total") == 1


@pytest.mark.parametrize("has_rotated", [True, False])
async def test_a_log_that_was_deleted_is_opened_anew_and_that_is_said_once(
    maintained: Maintained, capsys: pytest.CaptureFixture[str], has_rotated: bool
) -> None:
    maintained.write_lines(1)
    await maintained.read_all()
    if has_rotated:
        maintained.log.with_name("access.jsonl.1").write_bytes(b"{}\n")
    maintained.log.unlink()
    maintained.envoy.is_deaf = True
    for _ in range(2):
        with pytest.raises(EnvoyUnavailable):
            await maintained.maintain()
    maintained.envoy.is_deaf = False
    await maintained.maintain()
    await maintained.maintain()
    assert maintained.envoy.reopened == 1
    assert capsys.readouterr().out.count("access_log_file_missing") == 1
    maintained.write_lines(1)
    await maintained.read_all()
    assert len(maintained.settled.arrived) == 2


async def test_a_meter_that_does_not_read_does_not_rotate(maintained: Maintained) -> None:
    maintained.write_lines(5)
    await maintained.maintenance.maintain()
    maintained.restart()
    await maintained.read_all()
    maintained.write_lines(5)
    waiting = FileMaintenance(
        maintained.log,
        maintained.restart(),
        maintained.envoy,
        BOUNDS,
        maintained.metrics,
        maintained.clock,
    )
    before = maintained.names()
    await waiting.maintain()
    assert maintained.names() == before


async def test_the_clock_may_stand_still(maintained: Maintained) -> None:
    for _ in range(3):
        maintained.write_lines(5)
        await maintained.maintenance.maintain()
    await maintained.read_all()
    assert len(set(maintained.settled.arrived)) == 15


async def test_lines_that_envoy_could_not_write_are_alarmed(
    maintained: Maintained, capsys: pytest.CaptureFixture[str]
) -> None:
    for failures, is_alarmed in ((0, 0), (3, 1), (3, 0), (5, 1), (1, 0), (2, 1)):
        maintained.envoy.stats["filesystem.write_failed"] = failures
        await maintained.maintain()
        assert maintained.counted("write_failed") == failures
        assert capsys.readouterr().out.count("access_log_file_not_written") == is_alarmed


async def test_a_lag_is_alarmed_once_and_its_end_said(
    maintained: Maintained, capsys: pytest.CaptureFixture[str]
) -> None:
    maintained.write_lines(1)
    await maintained.read_all()
    await maintained.maintain()
    assert maintained.counted("unread_bytes") == 0
    maintained.write_lines(1)
    maintained.clock.advance(60)
    await maintained.maintain()
    await maintained.maintain()
    assert maintained.counted("lag_seconds") > 60
    assert maintained.counted("unread_bytes") > 0
    assert maintained.maintenance.is_lagging
    await maintained.read_all()
    await maintained.maintain()
    said = capsys.readouterr().out
    assert said.count("access_log_file_lags") == said.count("access_log_file_caught_up") == 1


def test_many_unread_bytes_are_a_lag_too() -> None:
    assert is_late(2**30, 0.0)
    assert is_late(0, 31.0)
    assert not is_late(2**20, 29.0)
