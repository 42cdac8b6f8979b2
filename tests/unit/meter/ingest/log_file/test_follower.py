"""Every whole line is settled, whatever happens to the file and to the meter that reads it."""

import asyncio
import os
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from meter.errors import StoreUnavailable
from meter.ingest.ending import EntryFacts
from meter.ingest.log_file.position import LogPosition
from meter.usage.usage import Source
from tests.file_log import SMALL_LINE_BYTES, Followed
from tests.log_lines import LATER, line, undecided
from tests.patience import until


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "access.jsonl")


def lines(holds: list[UUID]) -> bytes:
    return b"".join(line(hold) + b"\n" for hold in holds)


def ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


async def test_lines_are_settled_in_order_and_the_position_is_behind_them(
    followed: Followed,
) -> None:
    holds = ids(20)
    followed.write(lines(holds))
    await followed.read_all()
    assert followed.settled.arrived == holds
    assert followed.positions.position.offset_bytes == followed.log.stat().st_size
    assert followed.counted("lines_total", kind="ending") == 20


async def test_a_log_that_is_not_there_yet_is_waited_for(followed: Followed) -> None:
    await followed.read_all()
    holds = ids(1)
    followed.write(lines(holds))
    await followed.read_all()
    assert followed.settled.arrived == holds
    assert followed.counted("restarts_total", reason="missing") == 0


async def test_requests_without_a_decision_are_noted(followed: Followed) -> None:
    followed.write(undecided() + b"\n" + line(None) + b"\n" + undecided() + b"\n")
    await followed.read_all()
    assert len(followed.settled.undecided) == 2
    assert followed.counted("lines_total", kind="other") == 1


async def test_garbage_is_counted_and_passed_over(followed: Followed) -> None:
    first, second = ids(2)
    followed.write(b"garbage\n\n\xff\xfe\n" + lines([first]) + b"{}\n" + lines([second]))
    await followed.read_all()
    assert followed.settled.arrived == [first, second]
    assert followed.counted("lines_total", kind="malformed") == 4


@pytest.mark.parametrize("excess", [0, 1, 3 * SMALL_LINE_BYTES])
async def test_a_line_that_is_too_long_is_passed_over_without_being_kept(
    followed: Followed, excess: int
) -> None:
    first, second = ids(2)
    followed.write(lines([first]) + b"x" * (SMALL_LINE_BYTES + excess))
    await followed.read_all()
    assert followed.positions.position.offset_bytes >= SMALL_LINE_BYTES
    followed.write(b"x\n" + lines([second]))
    await followed.read_all()
    assert followed.settled.arrived == [first, second]
    assert followed.counted("lines_total", kind="too_long") == 1
    assert followed.counted("lines_total", kind="malformed") == 0


async def test_a_meter_that_is_killed_within_a_long_line_finds_the_next_one(
    followed: Followed,
) -> None:
    followed.write(b"x" * SMALL_LINE_BYTES * 2)
    await followed.read_all()
    followed.restart()
    (hold,) = ids(1)
    followed.write(b"x\n" + lines([hold]))
    await followed.read_all()
    assert followed.settled.arrived == [hold]


async def test_a_line_longer_than_a_chunk_is_read(followed: Followed) -> None:
    (hold,) = ids(1)
    followed.write(line(hold, path="p" * 2500) + b"\n")
    await followed.read_all()
    assert followed.settled.arrived == [hold]


async def test_the_stream_is_given_a_second(followed: Followed) -> None:
    young = LATER - timedelta(seconds=1.8)
    told = young.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    old, new = ids(2)
    followed.write(line(old) + b"\n" + line(new, start_time=told) + b"\n")
    pauses = [await followed.follower.step() for _ in range(4)]
    assert pauses[:2] == [0.0, 0.0]
    assert all(0.4 < pause < 0.5 for pause in pauses[2:])
    assert followed.settled.arrived == [old]
    followed.clock.advance(0.5)
    await followed.read_all()
    assert followed.settled.arrived == [old, new]
    assert followed.follower.lag_s == 0.0


async def test_a_clock_of_envoys_that_is_ahead_holds_nothing_up(followed: Followed) -> None:
    ahead = (LATER + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    (hold,) = ids(1)
    followed.write(line(hold, start_time=ahead) + b"\n")
    await followed.read_all()
    assert followed.settled.arrived == [hold]


async def test_nothing_is_saved_before_it_is_settled(followed: Followed) -> None:
    followed.write(lines(ids(2)))
    followed.settled.fails = 1
    await followed.follower.step()
    await followed.follower.step()
    with pytest.raises(StoreUnavailable):
        await followed.follower.step()
    assert followed.positions.position.offset_bytes == 0
    await followed.read_all()
    assert len(followed.settled.arrived) == 2


async def test_the_lease_is_renewed_while_the_books_are_slow(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two meters would take it from one another for ever, and none would move."""
    monkeypatch.setattr("meter.ingest.log_file.follower.RENEW_EVERY_S", 0.01)
    followed.write(lines(ids(1)))
    await followed.follower.step()
    await followed.follower.step()
    slow = asyncio.Event()
    settle_all = followed.settled.settle_all

    async def settle_slowly(entries: Sequence[EntryFacts], source: Source) -> None:
        await slow.wait()
        await settle_all(entries, source)

    monkeypatch.setattr(followed.settled, "settle_all", settle_slowly)
    before = followed.positions.read_at
    step = asyncio.create_task(followed.follower.step())
    await until(lambda: followed.positions.read_at != before, "the reader renews its lease")
    assert followed.positions.position.offset_bytes == 0
    slow.set()
    await step
    assert followed.positions.position.offset_bytes == followed.log.stat().st_size


async def test_a_save_that_fails_is_read_again(followed: Followed) -> None:
    holds = ids(1)
    followed.write(lines(holds))
    await followed.follower.step()
    await followed.follower.step()
    followed.positions.fails = 1
    with pytest.raises(StoreUnavailable):
        await followed.follower.step()
    await followed.read_all()
    assert followed.settled.arrived == holds * 2


async def test_the_lag_grows_while_nothing_can_be_saved(followed: Followed) -> None:
    followed.write(lines(ids(1)))
    await followed.read_all()
    assert followed.follower.lag_s == 0.0
    followed.clock.advance(40)
    followed.write(lines(ids(1)))
    followed.positions.fails = 1
    with pytest.raises(StoreUnavailable):
        await followed.follower.step()
    assert followed.follower.lag_s == 40.0
    await followed.read_all()
    assert followed.follower.lag_s == 0.0


async def test_a_reader_that_was_replaced_stops(followed: Followed) -> None:
    stopped = followed.follower
    holds = ids(2)
    followed.write(lines(holds[:1]))
    await followed.read_all()
    followed.restart()
    await followed.read_all()
    followed.write(lines(holds[1:]))
    await followed.read_all()
    assert await stopped.step() == 0.0
    assert stopped.position is None
    assert await stopped.step() == 1.0
    # The woken one settled the line once more: that is harmless, and it moved nothing.
    assert followed.settled.arrived == [*holds, holds[1]]


TEXT_HOLDS = [UUID(int=1), UUID(int=2)]
TEXT = b"".join(line(hold, usage=None, model=None) + b"\n" for hold in TEXT_HOLDS)


async def test_a_last_line_may_end_at_any_byte(followed: Followed) -> None:
    """The meter is killed after every byte that Envoy writes."""
    for place in range(len(TEXT)):
        followed.write(TEXT[place : place + 1])
        followed.restart()
        await followed.read_all()
        assert len(followed.settled.arrived) == TEXT[: place + 1].count(b"\n")
    assert followed.settled.arrived == TEXT_HOLDS
    assert followed.counted("lines_total", kind="malformed") == 0


async def test_a_log_may_be_renamed_at_any_byte(tmp_path: Path) -> None:
    """The writer ends the line in the renamed file, and opens the new one later."""
    (last,) = ids(1)
    for cut in range(0, len(TEXT) + 1, 11):
        followed = Followed(tmp_path / f"{cut}.jsonl")
        followed.write(TEXT[:cut])
        await followed.read_all()
        renamed = followed.rotate()
        await followed.read_all()
        if cut % 2:
            followed.restart()
        with renamed.open("ab") as file:
            file.write(TEXT[cut:])
        followed.write(lines([last]))
        await followed.read_all()
        assert followed.settled.arrived == [*TEXT_HOLDS, last]
        assert followed.counted("lines_total", kind="torn") == 0


async def test_several_rotations_are_caught_up_in_order(followed: Followed) -> None:
    holds = ids(12)
    for start in range(0, 12, 3):
        if start == 3:
            await followed.read_all()
        followed.write(lines(holds[start : start + 3]))
        if start < 9:
            followed.rotate()
    followed.restart()
    await followed.read_all()
    assert followed.settled.arrived == holds


async def test_files_that_others_rotated_are_read_by_their_age(followed: Followed) -> None:
    """As logrotate names them: the youngest has the smallest number."""
    holds = ids(12)
    for age, number in enumerate((2, 1)):
        path = followed.log.with_name(f"access.jsonl.{number}")
        path.write_bytes(lines(holds[age * 4 : age * 4 + 4]))
        os.utime(path, (1000 + age, 1000 + age))
    followed.write(lines(holds[8:]))
    followed.log.with_name("access.jsonl.1.gz").write_bytes(b"gz")
    followed.log.with_name("access.jsonl.bak").write_bytes(lines(ids(1)))
    await followed.read_all()
    assert followed.settled.arrived == holds


async def test_a_line_that_is_never_ended_is_left_behind_by_a_rotation(followed: Followed) -> None:
    first, last = ids(2)
    followed.write(lines([first]) + line(uuid4())[:100])
    followed.rotate()
    followed.write(lines([last]))
    await followed.read_all()
    assert followed.settled.arrived == [first, last]
    assert followed.counted("lines_total", kind="torn") == 1


async def test_a_writer_that_was_killed_loses_only_its_last_line(followed: Followed) -> None:
    first, last = ids(2)
    followed.write(lines([first]) + line(uuid4())[:100] + lines([last]))
    await followed.read_all()
    assert followed.settled.arrived == [first, last]
    assert followed.counted("lines_total", kind="torn") == 1


async def test_a_log_that_was_truncated_is_read_from_its_beginning(followed: Followed) -> None:
    before, after = ids(3), ids(1)
    followed.write(lines(before))
    await followed.read_all()
    os.truncate(followed.log, 0)
    followed.write(lines(after))
    await followed.read_all()
    assert followed.settled.arrived == before + after
    assert followed.counted("restarts_total", reason="truncated") == 1


async def test_a_log_that_was_truncated_and_grew_again_is_noticed(followed: Followed) -> None:
    before, after = ids(1), ids(4)
    followed.write(lines(before))
    await followed.read_all()
    os.truncate(followed.log, 0)
    followed.write(lines(after))
    await followed.read_all()
    assert followed.settled.arrived == before + after
    assert followed.counted("restarts_total", reason="replaced") == 1


async def test_an_inode_that_was_given_away_again_is_noticed(followed: Followed) -> None:
    holds = ids(2)
    followed.write(lines(holds))
    inode = followed.log.stat().st_ino
    followed.positions.position = LogPosition(inode, b"of another file", 100)
    await followed.read_all()
    assert followed.settled.arrived == holds
    assert followed.counted("restarts_total", reason="replaced") == 1


async def test_a_file_that_was_deleted_unread_is_alarmed(followed: Followed) -> None:
    before, after = ids(1), ids(1)
    followed.write(lines(before))
    await followed.read_all()
    followed.rotate().unlink()
    followed.write(lines(after))
    await followed.read_all()
    assert followed.settled.arrived == before + after
    alarms = [followed.counted("restarts_total", reason=why) for why in ("missing", "replaced")]
    # A disk may give the new file the old one's number at once.
    assert sum(alarms) + followed.counted("restarts_total", reason="truncated") == 1


@pytest.mark.parametrize("seed", range(25))
async def test_no_whole_line_is_passed_over(tmp_path: Path, seed: int) -> None:
    """Any interleaving of writing in pieces, reading, killing, rotating, failing."""
    chance = random.Random(seed)
    followed = Followed(tmp_path / "access.jsonl")
    written: list[UUID] = []
    pending = b""
    for _ in range(120):
        match chance.randrange(7):
            case 0 | 1:
                hold = uuid4()
                written.append(hold)
                pending += line(hold) + b"\n"
                if chance.random() < 0.1:
                    pending += b"garbage\n"
            case 2:
                cut = chance.randrange(len(pending) + 1)
                followed.write(pending[:cut])
                pending = pending[cut:]
            case 3:
                await step(followed)
            case 4:
                followed.restart()
            case 5 if followed.log.exists():
                # Envoy ends what it has begun before it opens the new file.
                with followed.rotate().open("ab") as file:
                    file.write(pending)
                pending = b""
            case 6:
                followed.settled.fails = chance.randrange(2)
                followed.positions.fails = chance.randrange(2)
    followed.write(pending)
    followed.settled.fails = followed.positions.fails = 0
    followed.restart()
    await followed.read_all()
    assert set(followed.settled.arrived) == set(written)
    assert followed.counted("restarts_total", reason="missing") == 0
    assert followed.counted("restarts_total", reason="replaced") == 0


async def step(followed: Followed) -> None:
    try:
        await followed.follower.step()
    except StoreUnavailable:
        return


async def test_behind_lines_that_were_settled_the_position_is_saved_once_a_second(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed.settled, "has_settled", lambda _: True)
    monkeypatch.setattr(followed.settled, "count_repeats", lambda _: None)
    await followed.read_all()
    beginning = followed.positions.position
    for _ in range(5):
        followed.write(line(uuid4()) + b"\n")
        followed.clock.advance(0.1)
        await followed.read_all()
    # Each line is read once, though none is saved yet.
    assert followed.counted("lines_total", kind="ending") == 5
    saved = followed.positions.position
    assert saved.offset_bytes == beginning.offset_bytes == 0
    followed.clock.advance(1)
    await followed.read_all()
    assert followed.positions.position.offset_bytes == followed.log.stat().st_size
    assert not followed.settled.arrived


async def test_behind_a_line_that_was_not_settled_it_is_saved_at_once(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = uuid4(), uuid4()
    monkeypatch.setattr(followed.settled, "has_settled", lambda facts: facts.hold_id == known.bytes)
    monkeypatch.setattr(followed.settled, "count_repeats", lambda _: None)
    await followed.read_all()
    followed.write(line(known) + b"\n" + line(new) + b"\n")
    await followed.read_all()
    assert followed.settled.arrived == [new]
    assert followed.positions.position.offset_bytes == followed.log.stat().st_size
