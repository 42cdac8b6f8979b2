"""Limits in a real Redis, and without it."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from authz.limits.answer import LimitAnswer, LimitUse
from authz.limits.local_limiter import LocalLimiter
from authz.limits.redis_limiter import GUARDED_S, RedisLimiter
from authz.metrics import Metrics
from meter.clock import ManualClock, SystemClock
from meter.limits.limits import Limit, LimitKind, LimitWindow, TokenUse
from meter.limits.redis_windows import RedisLimitWindows, connect
from tests import servers
from tests.fakes import EPOCH
from tests.patience import WAIT_S
from tests.windows import Oracle, requests, tokens
from tollkeeper.stack.servers import binaries, redis_server

# Of a call to Redis that is well: reached on no machine.
TIMEOUT_S = 30.0
STOPPED_TIMEOUT_S = 1.0


def make(
    url: str, instances: int = 2, timeout_s: float = TIMEOUT_S, clock: ManualClock | None = None
) -> RedisLimiter:
    local = LocalLimiter(clock or SystemClock(), instances)
    metrics = Metrics(CollectorRegistry())
    return RedisLimiter(connect(url, timeout_s), local, metrics, timeout_s, clock or SystemClock())


@pytest.fixture
async def limiter(redis_url: str) -> AsyncIterator[RedisLimiter]:
    made = make(redis_url)
    yield made
    await made.close()


async def take(limiter: RedisLimiter, limit: int, bucket: str = "account:a") -> LimitAnswer:
    return await limiter.take([requests(limit, bucket)])


async def admitted(limiter: RedisLimiter, limit: int, times: int, bucket: str = "account:a") -> int:
    answers = await asyncio.gather(*[take(limiter, limit, bucket) for _ in range(times)])
    return sum(answer.refused_by is None for answer in answers)


async def until_restored(limiter: RedisLimiter) -> None:
    async with asyncio.timeout(WAIT_S):
        while limiter.is_degraded:  # noqa: ASYNC110 - nothing to wait for but the state.
            await asyncio.sleep(0.01)


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.limits.redis_limiter.PROBE_INTERVAL_S", 0.02)


@pytest.mark.parametrize("limit", [1, 7, 60])
async def test_admits_the_limit_and_no_more(limiter: RedisLimiter, limit: int) -> None:
    answers = await asyncio.gather(*[take(limiter, limit) for _ in range(limit + 3)])
    passed = [answer for answer in answers if answer.refused_by is None]
    refused = [answer for answer in answers if answer.refused_by is not None]
    assert [answer.statuses[0].remaining for answer in passed] == list(range(limit - 1, -1, -1))
    assert len(refused) == 3
    for answer in refused:
        assert answer.statuses[0].remaining == 0
        assert answer.retry_after_s == pytest.approx(60.2, abs=0.5)
        assert answer.statuses[0].reset_s == pytest.approx(60.2, abs=0.5)


async def test_a_refusal_counts_in_no_bucket(limiter: RedisLimiter) -> None:
    both = [requests(1, "key:k"), requests(5)]
    assert (await limiter.take(both)).refused_by is None
    for _ in range(3):
        assert (await limiter.take(both)).refused_by == both[0].limit
    assert (await take(limiter, 5)).statuses[0].remaining == 3


async def test_two_instances_under_load_never_admit_more_than_the_limit(
    limiter: RedisLimiter, redis_url: str
) -> None:
    other = make(redis_url)
    oracle = Oracle()

    async def ask(instance: RedisLimiter) -> None:
        for _ in range(40):
            taken = [requests(500), requests(900, "key:k"), tokens(10_000, 7)]
            if (await instance.take(taken)).refused_by is None:
                oracle.note(time.monotonic_ns() // 1_000)

    await asyncio.gather(*[ask(one) for one in (limiter, other) for _ in range(32)])
    assert len(oracle.admitted) == 500
    await other.close()


async def test_shadow_limits_are_reported_and_refuse_nobody(limiter: RedisLimiter) -> None:
    shadow = requests(1, "rule:r", is_shadow=True)
    answers = [await limiter.take([shadow, requests(9)]) for _ in range(2)]
    assert [answer.shadow_refusals for answer in answers] == [(), (shadow.limit,)]
    assert [answer.refused_by for answer in answers] == [None, None]
    assert [status.limit for status in answers[1].statuses] == [9]


async def test_settled_tokens_count_for_the_next_request(
    limiter: RedisLimiter, redis_url: str
) -> None:
    assert (await limiter.take([tokens(100, 10)])).statuses[0].remaining == 90
    meter = RedisLimitWindows(connect(redis_url, TIMEOUT_S), SystemClock(), TIMEOUT_S)
    await meter.add_tokens([TokenUse(("account:a",), 85)])
    refused = await limiter.take([tokens(100, 10)])
    assert refused.refused_by is not None
    assert (refused.statuses[0].kind, refused.statuses[0].remaining) == (LimitKind.TOKENS, 5)
    await meter.add_tokens([TokenUse(("account:a",), -80)])
    assert (await limiter.take([tokens(100, 10)])).refused_by is None
    await meter.close()


async def test_more_tokens_than_the_limit_are_never_admitted(limiter: RedisLimiter) -> None:
    assert (await limiter.take([tokens(100, 101)])).retry_after_s == 60


async def test_a_full_bucket_is_known_without_asking(limiter: RedisLimiter) -> None:
    limit = requests(1).limit
    assert limiter.find_refusal([limit]) is None
    await take(limiter, 1)
    assert limiter.find_refusal([limit]) is None
    refused = await take(limiter, 1)
    again = limiter.find_refusal([limit])
    assert again is not None and again.refused_by == limit
    assert again.retry_after_s == pytest.approx(refused.retry_after_s, abs=0.5)


async def test_no_takings_are_admitted_without_redis() -> None:
    limiter = make("unix:///nowhere/redis.sock")
    assert (await limiter.take([])).refused_by is None
    assert not limiter.is_degraded
    await limiter.close()


async def test_checks_that_wait_together_share_a_round_trip(
    limiter: RedisLimiter, redis_url: str
) -> None:
    await take(limiter, 1_000)
    async with Redis.from_url(redis_url) as redis:
        before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await asyncio.gather(*[take(limiter, 1_000, f"key:{i}") for i in range(100)])
        after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 2


@pytest.mark.parametrize("lost", ["flushall", "script_flush"])
async def test_an_emptied_redis_gives_no_second_limit(
    limiter: RedisLimiter, redis_url: str, lost: str
) -> None:
    """Each of two instances has a share of 4, and 3 were admitted by this one."""
    assert await admitted(limiter, 8, 3) == 3
    async with Redis.from_url(redis_url) as redis:
        await getattr(redis, lost)()
    assert await admitted(limiter, 8, 8) == (1 if lost == "flushall" else 5)
    assert not limiter.is_degraded


async def test_after_a_loss_only_what_redis_admits_is_counted_here(redis_url: str) -> None:
    clock = ManualClock(EPOCH)
    limiter, other = make(redis_url, instances=1, clock=clock), make(redis_url)
    await take(limiter, 6)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    await take(limiter, 6)
    await admitted(other, 6, 5)
    assert await admitted(limiter, 6, 9) == 0
    async with Redis.from_url(redis_url) as redis:
        await redis.delete("tollkeeper:limit:requests:account:a")
    # Two of the six are counted here; the refusals before are not.
    assert await admitted(limiter, 6, 9) == 4
    clock.advance(GUARDED_S + 0.1)
    assert await admitted(limiter, 100, 9) == 9
    await asyncio.gather(limiter.close(), other.close())


async def test_without_redis_each_instance_admits_its_share_without_delay() -> None:
    limiter = make("unix:///nowhere/redis.sock", instances=2)
    answers = [await take(limiter, 8) for _ in range(6)]
    assert [answer.refused_by is None for answer in answers] == [True] * 4 + [False] * 2
    assert limiter.is_degraded
    await limiter.close()


async def test_what_redis_admitted_counts_when_it_goes_and_when_it_is_back(
    tmp_path: Path, quick_probe: None
) -> None:
    root = Path(os.path.realpath(tmp_path))
    with servers.redis_running(root) as server:
        limiter = make(server.url, instances=1)
        assert await admitted(limiter, 6, 2) == 2
    assert await admitted(limiter, 6, 2) == 2
    assert limiter.is_degraded
    with servers.redis_running(root):
        await until_restored(limiter)
        assert await admitted(limiter, 6, 9) == 2
        assert await admitted(limiter, 6, 9, "key:k") == 6
    await limiter.close()


async def test_what_is_older_than_a_minute_is_not_told_to_a_redis_that_is_back(
    tmp_path: Path, quick_probe: None
) -> None:
    clock, root = ManualClock(EPOCH), Path(os.path.realpath(tmp_path))
    with servers.redis_running(root) as server:
        limiter = make(server.url, instances=1, clock=clock)
        assert await admitted(limiter, 4, 1) == 1
    for _ in range(3):
        clock.advance(61)
        assert await admitted(limiter, 4, 9) == 4
    clock.advance(61)
    assert await admitted(limiter, 4, 1) == 1
    with servers.redis_running(root):
        await until_restored(limiter)
        clock.advance(GUARDED_S)
        assert await admitted(limiter, 4, 9) == 3
    await limiter.close()


async def test_a_redis_that_is_stopped_delays_one_batch_only(
    tmp_path: Path, quick_probe: None
) -> None:
    server = redis_server.RedisServer(binaries.redis_binary(), tmp_path / "r", tmp_path / "d")
    server.prepare()
    is_ready = redis_server.answers
    with servers.running(server.command(), lambda: is_ready(server), tmp_path / "log") as child:
        limiter = make(server.url, instances=1, timeout_s=STOPPED_TIMEOUT_S)
        assert await admitted(limiter, 30, 10) == 10
        child.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert await admitted(limiter, 30, 10) == 10
        # One wait for all ten, not one after the other.
        assert time.monotonic() - began < 9 * STOPPED_TIMEOUT_S
        # Nobody waits any more: this would take as long as a test that hangs.
        limiter._timeout_s = 10 * WAIT_S
        assert await admitted(limiter, 30, 5) == 5
        limiter._timeout_s = STOPPED_TIMEOUT_S
        child.send_signal(signal.SIGCONT)
        await until_restored(limiter)
        assert await admitted(limiter, 30, 30) == 5
        await limiter.close()


class SlowRedis:
    """Passes bytes to a real Redis and back; answers wait while it is paused."""

    def __init__(self, target: str) -> None:
        self._target = target.removeprefix("unix://")
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, back))
            group.create_task(self._copy(there, writer))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(2**16):
                await self.flowing.wait()
                sink.write(chunk)
                await sink.drain()
        sink.close()


async def test_late_answers_are_never_taken_for_others(
    redis_url: str, tmp_path: Path, quick_probe: None
) -> None:
    slow = SlowRedis(redis_url)
    server = await asyncio.start_unix_server(slow.connect, tmp_path / "r.sock")
    limiter = make(f"unix://{tmp_path / 'r.sock'}", instances=1, timeout_s=0.5)
    assert (await take(limiter, 50, "key:one")).statuses[0].remaining == 49
    slow.flowing.clear()
    await admitted(limiter, 70, 5, "key:two")
    assert limiter.is_degraded
    slow.flowing.set()
    await until_restored(limiter)
    for number in range(20):
        assert (await take(limiter, 90, f"key:new-{number}")).statuses[0].remaining == 89
    await limiter.close()
    server.close()


async def test_a_long_queue_is_answered_here(
    limiter: RedisLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.limits.redis_limiter.WAITING_LIMIT", 3)
    assert await admitted(limiter, 20, 20) == 13
    assert not limiter.is_degraded
    # What was admitted here was told to Redis, and not kept for its next outage.
    assert (await take(limiter, 20)).statuses[0].remaining == 6


async def test_keys_expire(limiter: RedisLimiter, redis_url: str) -> None:
    began_s = time.monotonic()
    await limiter.take([LimitUse(Limit("account:a", LimitKind.REQUESTS, 60), 1)])
    async with Redis.from_url(redis_url) as redis:
        left_ms = await redis.pttl("tollkeeper:limit:requests:account:a")
    assert left_ms + (time.monotonic() - began_s) * 1_000 > 60_500
    assert left_ms <= 61_000


async def test_a_month_outlives_the_data_of_redis(limiter: RedisLimiter, redis_url: str) -> None:
    uses = [LimitUse(Limit("account:a", LimitKind.REQUESTS, 5, window=LimitWindow.MONTH), 1)]
    for _ in range(3):
        assert (await limiter.take(uses)).refused_by is None
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    assert [(await limiter.take(uses)).refused_by is None for _ in range(3)] == [True, True, False]
    refused = await limiter.take([*uses, requests(60)])
    # A refused check counts nowhere, and what is known stays what was counted.
    assert refused.refused_by == uses[0].limit
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    assert (await limiter.take(uses)).refused_by is not None


async def test_windows_that_redis_evicts_are_noticed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.limits.redis_limiter.EVICTION_LOOK_S", 0.02)
    made = make(redis_url, instances=1)
    async with connect(redis_url, TIMEOUT_S) as redis:
        before = (await redis.config_get("maxmemory"))["maxmemory"]
        assert await admitted(made, 5, 5) == 5
        # The first look has been taken: what is evicted from now on is noticed.
        async with asyncio.timeout(WAIT_S):
            while not any(one["cmd"] == "info" for one in await redis.client_list()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        try:
            used = (await redis.info("memory"))["used_memory"]
            await redis.config_set("maxmemory", used + 200_000)
            for number in range(10_000):
                await redis.set(f"later:{number}", "x" * 1_000, px=3_600_000)
            assert not await redis.exists("tollkeeper:limit:requests:account:a")
            async with asyncio.timeout(WAIT_S):
                while not made._metrics.limits_evicted._value.get():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            await redis.config_set("maxmemory", before or "0")
            await redis.flushall()
    assert await admitted(made, 5, 5) == 0
    await made.close()
