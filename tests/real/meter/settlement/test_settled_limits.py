"""From a committed settlement to the windows of limits: real Postgres, real Redis."""

import asyncio
import uuid
from dataclasses import replace

from prometheus_client import CollectorRegistry

from authz.limits.local_limiter import LocalLimiter
from authz.limits.redis_limiter import RedisLimiter
from authz.metrics import Metrics
from meter.clock import SystemClock
from meter.holds.hold import CountedTokens, HoldPlaced
from meter.limits.redis_windows import RedisLimitWindows, connect
from meter.process.background import background
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.token_counting import CountingSettlementStore, TokenCounter
from tests.books import USD, Books, Payer, observed
from tests.windows import tokens

# Of a call to Redis that is well: reached on no machine.
TIMEOUT_S = 30.0
LIMIT = 1_000_000
PROMPT = 40


async def held(books: Books, payer: Payer, limiter: RedisLimiter) -> uuid.UUID:
    """A hold whose prompt was counted at admission."""
    assert (await limiter.take([tokens(LIMIT, PROMPT)])).refused_by is None
    request = replace(
        books.request(payer, USD // 10), counted=CountedTokens(("account:a",), PROMPT)
    )
    answer = await books.holds.place(request)
    assert isinstance(answer, HoldPlaced)
    return request.hold_id


async def test_what_requests_used_counts_once_in_the_limits(books: Books, redis_url: str) -> None:
    clock, registry = SystemClock(), CollectorRegistry()
    limiter = RedisLimiter(
        connect(redis_url, TIMEOUT_S), LocalLimiter(clock, 1), Metrics(registry), TIMEOUT_S, clock
    )
    windows = RedisLimitWindows(connect(redis_url, TIMEOUT_S), clock, TIMEOUT_S)
    counter = TokenCounter(windows, CollectorRegistry())
    settlements = CountingSettlementStore(PostgresSettlementStore(books.pool), counter)
    payer = await books.payer("alice", USD)
    settled, failed = await held(books, payer, limiter), await held(books, payer, limiter)
    ending = observed(settled, "0.001")
    refused = replace(
        observed(failed), usage=None, status_code=429, provider_status=429, generation_id=None
    )
    assert ending.usage is not None
    used = ending.usage.tokens.prompt + ending.usage.tokens.completion
    async with background("token counting", counter.run()):
        await asyncio.gather(*(settlements.settle([ending, refused]) for _ in range(3)))
    assert [await books.state(hold_id) for hold_id in (settled, failed)] == ["settled", "released"]
    answer = await limiter.take([tokens(LIMIT, 0)])
    assert answer.statuses[0].remaining == LIMIT - used
    await asyncio.gather(limiter.close(), windows.close())
