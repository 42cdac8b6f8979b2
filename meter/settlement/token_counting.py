"""Reports the tokens of settled requests to the limits, without delaying settlements.

A report that is lost makes limits less exact and never touches the books. A full queue and an
outage of Redis therefore drop reports.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.limits.limits import TokenUse
from meter.limits.redis_windows import RedisLimitWindows
from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation

QUEUE_LIMIT: Final = 10_000
BATCH_LIMIT: Final = 500
OUTAGE_PAUSE_S: Final = 1.0
# When the meter stops, queued reports are still sent, unless Redis is slow.
DRAIN_TIMEOUT_S: Final = 1.0

_log = structlog.get_logger(__name__)


class TokenCounter:
    """One task of a meter that reports tokens to the limits, with the bounded queue before it."""

    def __init__(self, windows: RedisLimitWindows, registry: CollectorRegistry) -> None:
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
        """True when the last report did not reach Redis."""
        return self._is_away

    def note(self, uses: Sequence[TokenUse]) -> None:
        """Queue the tokens of a committed batch; never waits, and drops what has no room."""
        room = QUEUE_LIMIT - len(self._queue)
        self._queue.extend(uses[:room])
        self._dropped.inc(max(0, len(uses) - room))
        if self._queue:
            self._has_some.set()

    async def run(self) -> None:
        """Report until cancelled, through outages; then send what is queued, if Redis is quick."""
        try:
            while True:
                await self._has_some.wait()
                if not await self._report():
                    await asyncio.sleep(OUTAGE_PAUSE_S)
        finally:
            try:
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    while self._queue and await self._report():
                        pass
            except (TimeoutError, asyncio.CancelledError):
                # In a task that is being cancelled, Python before 3.11.4 raises the latter.
                self._dropped.inc(len(self._queue))

    async def _report(self) -> bool:
        """Report one batch; return False after an outage, in which everything queued is dropped."""
        batch = [self._queue.popleft() for _ in range(min(BATCH_LIMIT, len(self._queue)))]
        if not self._queue:
            self._has_some.clear()
        try:
            await self._windows.add_tokens(batch)
        except StoreUnavailable as error:
            # The queue is dropped as well: a late report would count in a later minute.
            self._dropped.inc(len(batch) + len(self._queue))
            self._queue.clear()
            self._has_some.clear()
            if not self._is_away:
                _log.warning("token_counting_away", reason=str(error))
            self._is_away = True
            return False
        self._counted.inc(len(batch))
        if self._is_away:
            _log.info("token_counting_restored")
        self._is_away = False
        return True


class CountingSettlementStore:
    """Implements SettlementStore around another one, and notes the tokens that were used.

    The tokens are noted once the settlement is committed. Noting never waits and never raises, so
    that limits cannot hold up the books.
    """

    def __init__(self, settlements: SettlementStore, counter: TokenCounter) -> None:
        self._settlements = settlements
        self._counter = counter

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Settle observations, as the store within does, and note their tokens."""
        committed = await self._settlements.settle(observations)
        for changes in committed:
            self._counter.note(changes.token_uses)
        return committed

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """End holds by policy, as the store within does, and note their tokens."""
        changes = await self._settlements.end_by_policy(decisions)
        self._counter.note(changes.token_uses)
        return changes
