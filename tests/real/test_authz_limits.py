"""The request limit in a real Redis, and without it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from authz.decision import LimitStatus
from authz.limits import RedisLimiter, connect
from authz.local_limits import LocalLimiter
from authz.metrics import Metrics
from meter.accounts import Principal
from meter.clock import SystemClock
from tests.fakes import principal

TIMEOUT_S = 0.5


def who(limit: int | None, account_id: str = "account") -> Principal:
    return replace(principal(requests_per_minute=limit), account_id=account_id)


def make(url: str, instances: int = 2, timeout_s: float = TIMEOUT_S) -> RedisLimiter:
    local = LocalLimiter(SystemClock(), instances)
    return RedisLimiter(connect(url, timeout_s), local, Metrics(CollectorRegistry()), timeout_s)


@pytest.fixture
async def limiter(redis_url: str) -> AsyncIterator[RedisLimiter]:
    made = make(redis_url)
    yield made
    await made.close()


async def take(limiter: RedisLimiter, limit: int, account_id: str = "account") -> LimitStatus:
    status = await limiter.take(who(limit, account_id))
    assert status is not None
    return status


@pytest.mark.parametrize("limit", [1, 7, 60])
async def test_admits_the_limit_and_no_more(limiter: RedisLimiter, limit: int) -> None:
    statuses = await asyncio.gather(*[take(limiter, limit) for _ in range(limit + 3)])
    admitted = [status for status in statuses if status.retry_after_s is None]
    refused = [status for status in statuses if status.retry_after_s is not None]
    assert [status.remaining for status in admitted] == list(range(limit - 1, -1, -1))
    assert len(refused) == 3
    for status in refused:
        assert status.remaining == 0
        assert status.retry_after_s == pytest.approx(60 / limit, abs=1.5)
        assert status.reset_s == pytest.approx(60, abs=1.5)


async def test_a_bucket_fills_as_time_passes(limiter: RedisLimiter) -> None:
    for _ in range(600):
        await take(limiter, 600)
    refused = await take(limiter, 600)
    if refused.retry_after_s is not None:
        await asyncio.sleep(refused.retry_after_s + 0.02)
        assert (await take(limiter, 600)).retry_after_s is None


async def test_accounts_have_buckets_of_their_own(limiter: RedisLimiter) -> None:
    assert (await take(limiter, 1, "one")).retry_after_s is None
    assert (await take(limiter, 1, "two")).retry_after_s is None
    assert (await take(limiter, 1, "one")).retry_after_s is not None


async def test_instances_share_the_buckets(limiter: RedisLimiter, redis_url: str) -> None:
    other = make(redis_url)
    await take(limiter, 2)
    await take(other, 2)
    assert (await take(limiter, 2)).retry_after_s is not None
    await other.close()


async def test_without_a_limit_redis_is_not_asked() -> None:
    limiter = make("unix:///nowhere/redis.sock")
    assert await limiter.take(who(None)) is None
    assert not limiter.is_degraded
    await limiter.close()


async def test_checks_that_wait_together_share_a_round_trip(
    limiter: RedisLimiter, redis_url: str
) -> None:
    await take(limiter, 1_000)
    async with Redis.from_url(redis_url) as redis:
        before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await asyncio.gather(*[take(limiter, 1_000, f"a{i}") for i in range(100)])
        after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 2


async def test_an_emptied_redis_forgets_and_goes_on(limiter: RedisLimiter, redis_url: str) -> None:
    await take(limiter, 1)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
        await redis.script_flush()
    assert (await take(limiter, 1)).retry_after_s is None
    assert not limiter.is_degraded


async def test_keys_expire(limiter: RedisLimiter, redis_url: str) -> None:
    await take(limiter, 60)
    async with Redis.from_url(redis_url) as redis:
        assert 0 < await redis.pttl("tollkeeper:requests:account") <= 1_500


async def test_without_redis_each_instance_admits_its_share_without_delay() -> None:
    limiter = make("unix:///nowhere/redis.sock", instances=2)
    statuses = [await take(limiter, 8) for _ in range(6)]
    assert [status.retry_after_s is None for status in statuses] == [True] * 4 + [False] * 2
    assert limiter.is_degraded
    await limiter.close()


async def test_a_redis_that_hangs_delays_one_batch_only(tmp_path: Path) -> None:
    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    socket = tmp_path / "r.sock"
    server = await asyncio.start_unix_server(say_nothing, socket)
    limiter = make(f"unix://{socket}", timeout_s=0.05)
    began = time.monotonic()
    await asyncio.gather(*[take(limiter, 100) for _ in range(20)])
    assert time.monotonic() - began < 0.3
    began = time.monotonic()
    for _ in range(20):
        await take(limiter, 100)
    assert time.monotonic() - began < 0.05
    await limiter.close()
    server.close()


async def test_redis_is_asked_again_once_it_is_back(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.limits.PROBE_INTERVAL_S", 0.02)
    link = tmp_path / "redis.sock"
    limiter = make(f"unix://{link}")
    await take(limiter, 100)
    assert limiter.is_degraded
    link.symlink_to(redis_url.removeprefix("unix://"))
    async with asyncio.timeout(5):
        while limiter.is_degraded:  # noqa: ASYNC110 - nothing to wait for but the state.
            await asyncio.sleep(0.01)
    assert (await take(limiter, 100)).remaining == 99
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
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.limits.PROBE_INTERVAL_S", 0.02)
    slow = SlowRedis(redis_url)
    server = await asyncio.start_unix_server(slow.connect, tmp_path / "r.sock")
    limiter = make(f"unix://{tmp_path / 'r.sock'}", timeout_s=0.1)
    assert (await take(limiter, 50, "one")).remaining == 49
    slow.flowing.clear()
    await asyncio.gather(*[take(limiter, 70, "two") for _ in range(5)])
    assert limiter.is_degraded
    slow.flowing.set()
    async with asyncio.timeout(5):
        while limiter.is_degraded:  # noqa: ASYNC110 - nothing to wait for but the state.
            await asyncio.sleep(0.01)
    for account in range(20):
        assert (await take(limiter, 90, f"new-{account}")).remaining == 89
    await limiter.close()
    server.close()
