"""Asks for the provider's records of some requests that a log has settled.

The usage in a stream may be wrong, and nothing else compares it with the record where the provider
sends no reports. So a share of the settled requests is drawn, and their records are asked for at a
bounded rate. A record that names another cost corrects the charge in the usual way.

What is drawn is kept in memory: a restart loses it, and other requests are drawn.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.clock import Clock
from meter.errors import Outage, SealBroken, UnreadableRecord
from meter.lookups.worker import FindUsage
from meter.pricing.prices import DEFAULT_PROVIDER
from meter.process.periodic import periodic
from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation, Source

# Providers take some seconds until a record is complete.
RECORD_AFTER_S: Final = 60.0
MOST_WAITING: Final = 1_000
TICK_S: Final = 1.0

_CHANCE: Final = random.SystemRandom()
_log = structlog.get_logger(__name__)


class RecordSamples:
    """One task of a meter. `share` is the part of the requests that is drawn, 0 to 1.

    `per_second` bounds how often the provider is asked; what has no room is not asked about.
    """

    def __init__(
        self,
        settlements: SettlementStore,
        find_usage: FindUsage,
        clock: Clock,
        registry: CollectorRegistry,
        count: Callable[[SettlementChanges], None],
        share: float,
        per_second: float,
    ) -> None:
        self._settlements = settlements
        self._find_usage = find_usage
        self._clock = clock
        self._count = count
        self._share = share
        self._per_second = per_second
        self._allowance = 0.0
        self._waiting: deque[tuple[float, Observation]] = deque()
        self._outcomes = Counter(
            "tollkeeper_record_samples",
            "Settled requests whose record was asked for, by outcome (agrees, corrected, no_record,"
            " unpriced, unavailable).",
            ["outcome"],
            registry=registry,
        )

    def note(self, observations: Sequence[Observation]) -> None:
        """Draw some of these requests, which a log has settled; never waits."""
        for seen in observations:
            has_usage = seen.usage is not None and seen.usage.cost_usd is not None
            if (
                has_usage
                and seen.provider in (None, DEFAULT_PROVIDER)
                and seen.generation_id is not None
                and len(self._waiting) < MOST_WAITING
                and _CHANCE.random() < self._share
            ):
                self._waiting.append((self._clock.monotonic_s() + RECORD_AFTER_S, seen))

    async def run(self) -> None:
        """Ask until cancelled, through outages of Postgres and of the provider."""
        await periodic("record samples", self.step, TICK_S, TICK_S, (Outage,))

    async def step(self) -> None:
        """Ask for the records that are due, as many as the rate allows."""
        most = max(1.0, self._per_second * TICK_S)
        self._allowance = min(most, self._allowance + self._per_second * TICK_S)
        now_s = self._clock.monotonic_s()
        while self._allowance >= 1 and self._waiting and self._waiting[0][0] <= now_s:
            self._allowance -= 1
            _, seen = self._waiting.popleft()
            try:
                outcome = await self._compare(seen)
            except (Outage, SealBroken, UnreadableRecord):
                outcome = "unavailable"
            self._outcomes.labels(outcome).inc()

    async def _compare(self, seen: Observation) -> str:
        assert seen.generation_id is not None and seen.usage is not None
        usage = await self._find_usage(DEFAULT_PROVIDER, seen.generation_id)
        if usage is None:
            return "no_record"
        if not usage.cost_usd:
            # A record of 0 may be one that is not priced yet, and never takes a charge back alone.
            return "unpriced"
        if usage.cost_usd == seen.usage.cost_usd:
            return "agrees"
        changes = await self._settlements.settle([replace(seen, usage=usage, source=Source.LOOKUP)])
        for one in changes:
            self._count(one)
        if not any(one.bookings for one in changes):
            return "agrees"
        _log.warning(
            "sample_corrected",
            hold_id=seen.hold_id.hex,
            logged=str(seen.usage.cost_usd),
            recorded=str(usage.cost_usd),
        )
        return "corrected"


class SampledSettlementStore:
    """Settles through another store, and lets some of what the logs settled be compared."""

    def __init__(self, store: SettlementStore, samples: RecordSamples) -> None:
        self._store = store
        self._samples = samples

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Settle, and draw from what was settled; raises as the store does."""
        changes = await self._store.settle(observations)
        # Only those that our key was billed for: nobody else's record can be asked for with it.
        settled = {hold_id for one in changes for hold_id in one.ordinary}
        settled |= {
            booking.hold.id
            for one in changes
            for booking in one.bookings
            if not booking.hold.is_own_key
        }
        self._samples.note([seen for seen in observations if seen.hold_id in settled])
        return changes

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """End holds by policy; raises as the store does."""
        return await self._store.end_by_policy(decisions)
