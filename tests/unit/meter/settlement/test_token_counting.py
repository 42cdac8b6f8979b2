"""Tokens of settled requests are told to the limits, and settling never waits for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from prometheus_client import CollectorRegistry

from meter.errors import StoreUnavailable
from meter.limits.limits import TokenUse
from meter.limits.redis_windows import RedisLimitWindows
from meter.process.background import background
from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision
from meter.settlement.token_counting import QUEUE_LIMIT, CountingSettlementStore, TokenCounter
from meter.usage.usage import Observation
from tests.settlements import FakeSettlementStore

USE = TokenUse(("account:a",), 5)


class Windows(RedisLimitWindows):
    """Keeps what it is told; `is_away` raises, and `gate` makes it slow."""

    def __init__(self) -> None:
        # Nothing of Redis: the one method that is called is replaced.
        self.told: list[TokenUse] = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def add_tokens(self, uses: Sequence[TokenUse]) -> None:
        """Keep them."""
        await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        self.told += uses


class Settlements(FakeSettlementStore):
    """Every batch uses the same."""

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Two plans."""
        return [SettlementChanges(token_uses=[USE]), SettlementChanges(token_uses=[USE])]

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """One plan."""
        return SettlementChanges(token_uses=[USE])


@pytest.fixture
def windows() -> Windows:
    return Windows()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def counter(windows: Windows, registry: CollectorRegistry) -> AsyncIterator[TokenCounter]:
    made = TokenCounter(windows, registry)
    async with background("token counting", made.run()):
        yield made


def outcomes(registry: CollectorRegistry) -> tuple[float, float]:
    counted, dropped = (
        registry.get_sample_value("tollkeeper_token_uses_total", {"outcome": outcome}) or 0.0
        for outcome in ("counted", "dropped")
    )
    return counted, dropped


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_was_committed_is_told(
    counter: TokenCounter, windows: Windows, registry: CollectorRegistry
) -> None:
    settlements = CountingSettlementStore(Settlements(), counter)
    assert len(await settlements.settle([])) == 2
    await settlements.end_by_policy([])
    await turns()
    assert windows.told == [USE] * 3
    assert outcomes(registry) == (3, 0)


async def test_a_full_queue_drops_and_never_waits(
    counter: TokenCounter, windows: Windows, registry: CollectorRegistry
) -> None:
    windows.gate.clear()
    counter.note([USE])
    await turns()
    counter.note([USE] * (QUEUE_LIMIT + 7))
    counter.note([USE])
    assert outcomes(registry) == (0, 8)
    windows.gate.set()
    await turns()
    assert len(windows.told) == QUEUE_LIMIT + 1


async def test_an_outage_drops_what_waits_and_is_over_when_redis_is_back(
    counter: TokenCounter,
    windows: Windows,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meter.settlement.token_counting.OUTAGE_PAUSE_S", 0.0)
    windows.is_away = True
    counter.note([USE] * 700)
    await turns()
    assert counter.is_away
    assert outcomes(registry) == (0, 700)
    windows.is_away = False
    counter.note([USE])
    await turns()
    assert not counter.is_away
    assert outcomes(registry) == (1, 700)


async def test_what_is_queued_is_told_at_the_end(windows: Windows) -> None:
    counter = TokenCounter(windows, CollectorRegistry())
    async with background("token counting", counter.run()):
        await turns()
        counter.note([USE])
    assert windows.told == [USE]


async def test_the_end_does_not_wait_for_a_slow_redis(
    windows: Windows, monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    monkeypatch.setattr("meter.settlement.token_counting.DRAIN_TIMEOUT_S", 0.01)
    windows.gate.clear()
    counter = TokenCounter(windows, registry)
    async with background("token counting", counter.run()):
        await turns()
        counter.note([USE] * 600)
    assert outcomes(registry) == (0, 100)
