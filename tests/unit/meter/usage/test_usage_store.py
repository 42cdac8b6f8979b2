"""Adding up usage takes a share of the connections, whoever asks however often."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import date

import pytest

from meter.errors import InvalidRequest, StoreUnavailable
from meter.usage import usage_store
from meter.usage.usage_store import MOST_AT_ONCE, MOST_WAITING, UsageStore
from meter.usage.usage_totals import Grouping, UsageTotals

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)
TURNS = 20


class SlowPool:
    """A pool whose queries wait for the gate; `asking` has the accounts of those that wait."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asking: list[str] = []
        self.asked = 0
        self.is_out_of_time = False

    @contextlib.asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator["SlowPool"]:
        """Return a connection."""
        yield self

    async def fetch(self, _: str, account_id: str, *__: object, timeout: float) -> list[object]:
        """Wait, and return no row; as asyncpg does, raise TimeoutError after the timeout."""
        if self.is_out_of_time:
            raise TimeoutError(timeout)
        self.asked += 1
        self.asking.append(account_id)
        await self.gate.wait()
        self.asking.remove(account_id)
        return []


def ask(store: UsageStore, account: str, limit: int = 1) -> "asyncio.Task[list[UsageTotals]]":
    page = store.list_totals(account, Grouping.DAY, (FIRST, LAST), None, limit)
    return asyncio.create_task(page)


async def let_all_run() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_an_account_has_one_query_at_once_and_all_have_some() -> None:
    pool = SlowPool()
    store = UsageStore(pool)  # type: ignore[arg-type]
    asked = [ask(store, "a", limit) for limit in range(1, 10)]
    await let_all_run()
    assert pool.asking == ["a"]
    asked += [ask(store, name) for name in "bcd"]
    await let_all_run()
    assert len(pool.asking) == MOST_AT_ONCE
    assert pool.asking[:2] == ["a", "b"]
    pool.gate.set()
    assert await asyncio.gather(*asked) == [[]] * 12


async def test_equal_questions_are_asked_once_though_a_caller_leaves() -> None:
    pool = SlowPool()
    store = UsageStore(pool)  # type: ignore[arg-type]
    leaves, stays = ask(store, "a"), ask(store, "a")
    await let_all_run()
    leaves.cancel()
    await let_all_run()
    pool.gate.set()
    assert await stays == []
    assert pool.asked == 1
    assert await ask(store, "a") == []
    assert pool.asked == 2


async def test_a_bounded_number_waits() -> None:
    pool = SlowPool()
    store = UsageStore(pool)  # type: ignore[arg-type]
    asked = [ask(store, f"u{number}") for number in range(MOST_WAITING)]
    await let_all_run()
    with pytest.raises(StoreUnavailable, match="too many"):
        await ask(store, "late")
    pool.gate.set()
    await asyncio.gather(*asked)
    assert await ask(store, "late") == []


async def test_a_slow_answer_is_given_again_and_a_quick_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = SlowPool()
    pool.gate.set()
    store = UsageStore(pool)  # type: ignore[arg-type]
    for _ in range(2):
        await ask(store, "a")
    assert pool.asked == 2
    monkeypatch.setattr(usage_store, "SLOW_S", -1.0)
    # However slow this machine is, an answer is kept for longer than the two calls take.
    monkeypatch.setattr(usage_store, "CACHED_TIMES", 10**9)
    for _ in range(3):
        await ask(store, "b")
    assert pool.asked == 3


async def test_a_period_that_takes_too_long_is_refused_and_says_so() -> None:
    pool = SlowPool()
    pool.is_out_of_time = True
    store = UsageStore(pool)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="fewer days"):
        await ask(store, "a")
