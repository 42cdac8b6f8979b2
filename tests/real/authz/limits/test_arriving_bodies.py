"""Room for large bodies, counted in a real Redis for several instances."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from authz.endpoints.body_work import BURST_S, SHARE
from authz.limits.arriving_bodies import ArrivingBodies, Room, TooMuchWork
from authz.metrics import Metrics
from meter.clock import SystemClock
from meter.limits.redis_windows import connect
from tests.patience import WAIT_S


@contextlib.asynccontextmanager
async def instance(url: str) -> AsyncIterator[ArrivingBodies]:
    metrics = Metrics(CollectorRegistry())
    made = ArrivingBodies(connect(url, WAIT_S), SystemClock(), metrics, WAIT_S, 100, 60)
    yield made
    await made.close()


async def given_back(bodies: ArrivingBodies, account: str, body: str, size: int) -> None:
    bodies.give_back(account, body, size)
    await asyncio.gather(*bodies._giving_back)


async def test_room_that_one_instance_gave_another_takes_back(redis_url: str) -> None:
    async with instance(redis_url) as one, instance(redis_url) as other:
        assert await one.take("a", "1", 60) is Room.GIVEN
        assert await one.take("a", "1", 60) is Room.NONE_FOR_ACCOUNT
        assert await other.take("a", "2", 1) is Room.NONE_FOR_ACCOUNT
        assert await other.take("b", "3", 41) is Room.NONE_AT_ALL
        assert await other.take("b", "3", 40) is Room.GIVEN
        for _ in range(2):
            await given_back(other, "a", "1", 60)
        assert await one.take("a", "2", 60) is Room.GIVEN


async def test_work_that_one_instance_did_another_refuses(redis_url: str) -> None:
    async with instance(redis_url) as reader, instance(redis_url) as gate:
        reader.give_back("a", "1", 60, spent_s=2 * BURST_S)
        await asyncio.gather(*reader._giving_back)
        refused = await gate.take("a", "2", 1)
        assert isinstance(refused, TooMuchWork)
        assert 0 < refused.retry_after_s <= BURST_S / SHARE
        assert await gate.take("b", "3", 1) is Room.GIVEN
        reader.give_back("b", "3", 1, spent_s=BURST_S / 2)
        await asyncio.gather(*reader._giving_back)
        assert await gate.take("b", "4", 1) is Room.GIVEN


async def test_room_ends_and_lost_sums_begin_anew(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    async with instance(redis_url) as bodies:
        await bodies.take("a", "1", 60)
        keys = sorted(await redis.keys("tollkeeper:bodies:*"))
        assert len(keys) == 4
        assert all([0 < await redis.ttl(key) <= 240 for key in keys])
        for key in keys[::2]:
            # As if its time had passed.
            await redis.zadd(key, {"1 60": 1})
        assert await bodies.take("a", "2", 60) is Room.GIVEN
        await redis.delete(*keys[::2])
        assert await bodies.take("a", "3", 60) is Room.GIVEN
    await redis.aclose()


async def test_without_redis_an_instance_counts_alone() -> None:
    metrics = Metrics(CollectorRegistry())
    redis = connect("unix:///nowhere/redis.sock", WAIT_S)
    bodies = ArrivingBodies(redis, SystemClock(), metrics, WAIT_S, 100, 60)
    assert await bodies.take("a", "1", 60) is Room.GIVEN
    assert await bodies.take("a", "2", 60) is Room.NONE_FOR_ACCOUNT
    bodies.give_back("a", "1", 60)
    assert await bodies.take("a", "2", 60) is Room.GIVEN
    await bodies.close()
