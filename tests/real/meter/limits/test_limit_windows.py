"""The scripts that keep windows in Redis, at times of the tests' own choosing."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from authz.limits.answer import NEVER
from meter.clock import SystemClock
from meter.errors import StoreUnavailable
from meter.limits.limits import LimitKind, LimitWindow, TokenUse, end_of_window, key_of
from meter.limits.redis_windows import (
    BORN_KEY,
    LimitScript,
    RedisLimitWindows,
    connect,
    redis_key,
)
from tests.fakes import EPOCH
from tests.patience import WAIT_S
from tests.windows import Oracle, usable_share

SECOND = 1_000_000
START_US = int(EPOCH.timestamp()) * SECOND
KEY = redis_key(key_of(LimitKind.TOKENS, "account:a"))
OTHER = redis_key(key_of(LimitKind.TOKENS, "key:k"))

# One bucket of a question: key, limit, amount, whether it is in shadow mode.
Asked = tuple[str, int, int, int]


class Windows:
    """Both scripts, as `authz` and the meter call them."""

    def __init__(self, redis: Redis) -> None:
        self._take = LimitScript(redis, "take")
        self._add = LimitScript(redis, "add")

    async def take(self, at_us: int, *checks: Sequence[Asked]) -> list[list[int]]:
        """Return what is left, how long to wait, and when all is there again, for each bucket."""
        keys = list(dict.fromkeys(asked[0] for check in checks for asked in check))
        numbers: list[float] = []
        for check in checks:
            numbers.append(len(check))
            for key, *rest in check:
                numbers += (keys.index(key) + 1, *rest, 0, 0)
        _, *found = await self._take.run([*keys, BORN_KEY], numbers, str(START_US + at_us))
        return [found[at : at + 3] for at in range(0, len(found), 3)]

    async def take_in(
        self, window: LimitWindow, at_us: int, limit: int, known: int = 0
    ) -> tuple[int, ...]:
        """Ask for one request of a day or month; `known` is what the caller knows was counted."""
        key = redis_key(key_of(LimitKind.REQUESTS, "account:a", window))
        numbers = [1, 1, limit, 1, 0, window, known]
        _, *found = await self._take.run([key, BORN_KEY], numbers, str(START_US + at_us))
        return tuple(found)

    async def add(self, at_us: int, amount: int, age_us: int = 0, key: str = KEY) -> None:
        """Count what has happened."""
        await self._add.run([key], [1, amount, age_us, 0], str(START_US + at_us))

    async def total(self, at_us: int, key: str = KEY) -> int:
        """Return the contents of the window."""
        [[spare, _, _]] = await self.take(at_us, [(key, 10**12, 0, 0)])
        return 10**12 - spare


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, WAIT_S) as client:
        yield client


@pytest.fixture
async def windows(redis: Redis) -> Windows:
    return Windows(redis)


@given(
    limit=st.integers(1, 30),
    steps=st.lists(
        st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 9)), min_size=1, max_size=80
    ),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_minute_holds_more_than_the_limit(
    redis_url: str, limit: int, steps: list[tuple[int, int]]
) -> None:
    async def play() -> None:
        async with connect(redis_url, WAIT_S) as client:
            await client.flushall()
            windows, oracle, at_us = Windows(client), Oracle(), 0
            for pause_us, amount in steps:
                at_us += pause_us
                [[spare, wait_us, reset_us]] = await windows.take(at_us, [(KEY, limit, amount, 0)])
                if spare >= 0:
                    oracle.note(at_us, amount)
                    assert 60 * SECOND < reset_us <= 60_500_000
                elif amount > limit:
                    assert wait_us == NEVER
                else:
                    assert 0 < wait_us <= reset_us
            assert oracle.fullest() <= limit

    asyncio.run(play())


@pytest.mark.parametrize("limit", [1, 7, 600])
async def test_nearly_all_of_the_limit_can_be_used(windows: Windows, limit: int) -> None:
    pending: list[int] = []

    def ask(at_us: int) -> bool:
        pending.append(at_us)
        return False

    usable_share(ask, limit, minutes=4)
    admitted = 0
    for at_us in pending:
        [[spare, _, _]] = await windows.take(at_us, [(KEY, limit, 1, 0)])
        admitted += spare >= 0
    assert 0.98 <= admitted / (4 * limit) <= 1


async def test_waits_are_exact(windows: Windows) -> None:
    for at_us in (0, 7 * SECOND, 14 * SECOND):
        await windows.take(at_us, [(KEY, 30, 10, 0)])
    [[_, wait_us, _]] = await windows.take(20 * SECOND, [(KEY, 30, 15, 0)])
    last_refused_us = 20 * SECOND + wait_us - 1
    assert (await windows.take(last_refused_us, [(KEY, 30, 15, 0)]))[0][0] < 0
    assert (await windows.take(last_refused_us + 1, [(KEY, 30, 15, 0)]))[0][0] == 5


async def test_all_buckets_or_none_and_shadows_refuse_nobody(windows: Windows) -> None:
    first = [(KEY, 10, 6, 0), (OTHER, 5, 6, 1)]
    assert [spare for spare, _, _ in await windows.take(0, first)] == [4, -1]
    assert await windows.total(0, OTHER) == 6
    assert [spare for spare, _, _ in await windows.take(0, first)] == [-2, -7]
    assert (await windows.total(0), await windows.total(0, OTHER)) == (6, 6)


async def test_checks_of_one_call_count_one_after_the_other(windows: Windows) -> None:
    found = await windows.take(0, *[[(KEY, 3, 1, 0), (OTHER, 100, 1, 0)] for _ in range(5)])
    assert [spare for spare, _, _ in found] == [2, 99, 1, 98, 0, 97, -1, 96, -1, 96]
    assert await windows.total(0, OTHER) == 3


async def test_settled_tokens_count_whatever_the_limit(windows: Windows) -> None:
    await windows.take(0, [(KEY, 10, 4, 0)])
    await windows.add(3 * SECOND, 96)
    assert (await windows.take(4 * SECOND, [(KEY, 10, 1, 0)]))[0][0] == -91
    assert await windows.total(60_600_000) == 96
    assert await windows.total(63_600_000) == 0


async def test_tokens_counted_too_much_are_given_back_where_they_were_counted(
    windows: Windows,
) -> None:
    for at_us in (0, 10 * SECOND, 20 * SECOND):
        await windows.add(at_us, 10)
    # From the slot of 10 s, and then from older ones; never from the one of 20 s.
    await windows.add(25 * SECOND, -15, age_us=15 * SECOND)
    assert await windows.total(25 * SECOND) == 15
    assert await windows.total(61 * SECOND) == 10
    await windows.add(61 * SECOND, -99, age_us=41 * SECOND)
    assert await windows.total(61 * SECOND) == 0


async def test_nothing_is_given_back_of_what_has_left_the_window(windows: Windows) -> None:
    await windows.add(0, 10)
    await windows.add(50 * SECOND, 10)
    await windows.add(70 * SECOND, -10, age_us=70 * SECOND)
    assert await windows.total(70 * SECOND) == 10


async def test_a_window_is_what_a_list_of_everything_says(windows: Windows) -> None:
    chance = random.Random(7)
    events: list[tuple[int, int]] = []
    at_us = 0
    for _ in range(600):
        at_us += chance.randrange(0, 2 * SECOND)
        amount = chance.randrange(1, 100)
        await windows.add(at_us, amount)
        events.append((at_us // 500_000, amount))
        oldest = at_us // 500_000 - 120
        assert await windows.total(at_us) == sum(n for slot, n in events if slot >= oldest)


async def test_memory_of_a_bucket_is_bounded_and_expires(windows: Windows, redis: Redis) -> None:
    began_s = time.monotonic()
    for at_us in range(0, 200 * SECOND, SECOND // 4):
        await windows.add(at_us, 10**9)
    assert await redis.strlen(KEY) == 8 + 121 * 10
    left_ms = await redis.pttl(KEY)
    assert left_ms + (time.monotonic() - began_s) * 1_000 > 60_500
    assert left_ms <= 61_000


async def test_a_clock_set_back_forgets_nothing_and_blocks_for_a_minute(windows: Windows) -> None:
    for at_us in range(3_600 * SECOND, 3_610 * SECOND, SECOND):
        await windows.take(at_us, [(KEY, 10, 1, 0)])
    [[spare, wait_us, _]] = await windows.take(0, [(KEY, 10, 1, 0)])
    assert spare == -1
    assert wait_us == 60_500_000
    await windows.add(0, 0)
    assert await windows.total(59 * SECOND) == 10
    assert await windows.total(61 * SECOND) == 0


async def test_many_buckets_in_one_call(windows: Windows) -> None:
    keys = [redis_key(key_of(LimitKind.REQUESTS, f"key:{number}")) for number in range(1_024)]
    checks = [[(key, 10, 1, 0) for key in keys[at : at + 4]] for at in range(0, 1_024, 4)]
    for left in (9, 8):
        found = await windows.take(0, *checks)
        assert [spare for spare, _, _ in found] == [left] * 1_024


async def test_the_meter_counts_by_the_clock_of_redis(redis: Redis) -> None:
    windows = RedisLimitWindows(redis, SystemClock(), WAIT_S)
    now = SystemClock().now()
    await windows.add_tokens(
        [
            TokenUse(("account:a", "key:k"), 50),
            TokenUse(("account:a",), -20, now),
            TokenUse(("key:k",), -20, now - timedelta(seconds=90)),
            TokenUse((), 10),
        ]
    )
    time_us = await redis.time()
    at_us = time_us[0] * SECOND + time_us[1] - START_US
    counted = Windows(redis)
    assert (await counted.total(at_us), await counted.total(at_us, OTHER)) == (30, 50)


async def test_the_meter_brings_the_script_again(redis: Redis) -> None:
    windows = RedisLimitWindows(redis, SystemClock(), WAIT_S)
    for _ in range(2):
        await windows.add_tokens([TokenUse(("account:a",), 5)])
        await redis.script_flush()
    await windows.add_tokens([])
    time_us = await redis.time()
    assert await Windows(redis).total(time_us[0] * SECOND + time_us[1] - START_US) == 10


async def test_an_outage_is_an_exception() -> None:
    windows = RedisLimitWindows(connect("unix:///nowhere/redis.sock", 0.1), SystemClock(), 0.1)
    with pytest.raises(StoreUnavailable):
        await windows.add_tokens([TokenUse(("account:a",), 5)])
    await windows.close()


def test_keys_tell_kinds_apart() -> None:
    names = {redis_key(key_of(kind, "key:k")) for kind in LimitKind}
    assert names == {"tollkeeper:limit:requests:key:k", "tollkeeper:limit:tokens:key:k"}
    assert not any(a.startswith(b) for a, b in itertools.permutations(names, 2))


@pytest.mark.parametrize("window", [LimitWindow.DAY, LimitWindow.MONTH])
async def test_days_and_months_are_those_of_the_calendar(
    windows: Windows, redis: Redis, window: LimitWindow
) -> None:
    # Ends of years, of February in leap years and others, and of a century.
    days = ((2030, 1, 1), (2031, 12, 31), (2032, 2, 28), (2032, 2, 29), (2100, 2, 28))
    for noon in (datetime(*day, 12, tzinfo=UTC) for day in days):
        await redis.flushall()
        at_us = (noon - EPOCH) // timedelta(microseconds=1)
        left_us = (end_of_window(window, noon) - noon) // timedelta(microseconds=1)
        assert await windows.take_in(window, at_us, 2) == (1, 0, left_us)
        assert await windows.take_in(window, at_us + left_us - 1, 2) == (0, 0, 1)
        assert await windows.take_in(window, at_us + left_us - 1, 2) == (-1, 1, 1)
        spare, wait_us, _ = await windows.take_in(window, at_us + left_us, 2)
        assert (spare, wait_us) == (1, 0)


async def test_a_count_that_was_lost_is_taken_over(windows: Windows, redis: Redis) -> None:
    for _ in range(3):
        await windows.take_in(LimitWindow.MONTH, 0, 5)
    await redis.flushall()
    assert (await windows.take_in(LimitWindow.MONTH, 1, 5, known=3))[0] == 1
    # Redis has counted more than this caller knows of: others asked meanwhile.
    assert (await windows.take_in(LimitWindow.MONTH, 2, 5, known=3))[0] == 0
    assert (await windows.take_in(LimitWindow.MONTH, 3, 5, known=3))[0] == -1
