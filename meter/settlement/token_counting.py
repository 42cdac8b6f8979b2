"""Tells the limits of tokens what settled requests used. Settling never waits for it.

What is not told makes limits less exact, never the books: so a full queue drops, and so does an
outage of Redis.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.limits.limits import TokenUse
from meter.settlement.changes import BatchPlan
from meter.settlement.policy import PolicyDecision
from meter.usage.usage import Observation

QUEUE_LIMIT: Final = 10_000
BATCH_LIMIT: Final = 500
OUTAGE_PAUSE_S: Final = 1.0
# At the end of the meter what is queued is told, unless Redis is slow.
DRAIN_TIMEOUT_S: Final = 1.0

_log = structlog.get_logger(__name__)


class LimitWindows(Protocol):
    """Where limits are counted; `meter.limits.redis_windows` has the real one."""

    async def add_tokens(self, uses: Sequence[TokenUse]) -> None:
        """Count them. Raises StoreUnavailable when nobody answers in time."""
        ...


class Settlements(Protocol):
    """Where holds end; `meter.settlement.settlement_store` has the real one."""

    async def settle(self, observations: Sequence[Observation]) -> list[BatchPlan]:
        """Settle observations."""
        ...

    async def decide(self, decisions: Sequence[PolicyDecision]) -> BatchPlan:
        """End by policy."""
        ...


class TokenCounter:
    """One task of a meter, and the bounded queue before it."""

    def __init__(self, windows: LimitWindows, registry: CollectorRegistry) -> None:
        self._windows = windows
        self._queue: deque[TokenUse] = deque()
        self._has_some = asyncio.Event()
        self._is_away = False
        uses = Counter(
            "tollkeeper_token_uses",
            "What settled requests used of limits of tokens: counted, or dropped.",
            ["outcome"],
            registry=registry,
        )
        self._counted, self._dropped = uses.labels("counted"), uses.labels("dropped")

    @property
    def is_away(self) -> bool:
        """Whether the last that was told did not get through."""
        return self._is_away

    def note(self, uses: Sequence[TokenUse]) -> None:
        """Take in what a committed batch used; never waits."""
        room = QUEUE_LIMIT - len(self._queue)
        self._queue.extend(uses[:room])
        self._dropped.inc(max(0, len(uses) - room))
        if self._queue:
            self._has_some.set()

    async def run(self) -> None:
        """Tell for ever, through outages; at the end what is left, if that goes at once."""
        try:
            while True:
                await self._has_some.wait()
                if not await self._tell():
                    await asyncio.sleep(OUTAGE_PAUSE_S)
        finally:
            await self._tell_rest()

    async def _tell(self) -> bool:
        batch = [self._queue.popleft() for _ in range(min(BATCH_LIMIT, len(self._queue)))]
        if not self._queue:
            self._has_some.clear()
        try:
            await self._windows.add_tokens(batch)
        except StoreUnavailable as error:
            self._lose(batch, error)
            return False
        self._counted.inc(len(batch))
        if self._is_away:
            _log.info("token_counting_restored")
        self._is_away = False
        return True

    def _lose(self, batch: Sequence[TokenUse], error: StoreUnavailable) -> None:
        """Drop what waits as well: told late, it would count for another minute than its own."""
        self._dropped.inc(len(batch) + len(self._queue))
        self._queue.clear()
        self._has_some.clear()
        if not self._is_away:
            _log.warning("token_counting_away", reason=str(error))
        self._is_away = True

    async def _tell_rest(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while self._queue and await self._tell():
                    pass
        except (TimeoutError, asyncio.CancelledError):
            # In a task that is being cancelled, Python before 3.11.4 says the latter.
            self._dropped.inc(len(self._queue))


class CountingSettlements:
    """Settlements that note what they used, once it is committed."""

    def __init__(self, settlements: Settlements, counter: TokenCounter) -> None:
        self._settlements = settlements
        self._counter = counter

    async def settle(self, observations: Sequence[Observation]) -> list[BatchPlan]:
        """Settle observations."""
        plans = await self._settlements.settle(observations)
        for plan in plans:
            self._counter.note(plan.token_uses)
        return plans

    async def decide(self, decisions: Sequence[PolicyDecision]) -> BatchPlan:
        """End by policy."""
        plan = await self._settlements.decide(decisions)
        self._counter.note(plan.token_uses)
        return plan
