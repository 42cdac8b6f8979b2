"""Settles parked endings once nobody keeps their hold or account locked.

An ending is deleted here after it was settled. A meter that dies between the two settles it again,
which changes nothing.
"""

from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import BrokenInvariant, StoreUnavailable
from meter.process.crash_points import CrashPoints
from meter.process.halving import in_halves
from meter.process.periodic import periodic
from meter.settlement.changes import SettlementChanges
from meter.settlement.parked_store import ParkedEnding, ParkedEndingStore
from meter.settlement.port import SettlementStore

EVERY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class ParkedEndings:
    """One task of a meter; several meters may have one each.

    `count` is told of all changes that were committed.
    """

    def __init__(
        self,
        store: ParkedEndingStore,
        settlements: SettlementStore,
        count: Callable[[SettlementChanges], None],
        registry: CollectorRegistry,
        crash_points: CrashPoints,
    ) -> None:
        self._store = store
        self._settlements = settlements
        self._count = count
        self._crash_points = crash_points
        self._oldest = Gauge(
            "tollkeeper_parked_endings_oldest_seconds",
            "How long the oldest ending waits for a locked account; 0 when none does.",
            registry=registry,
        )
        self._failed = Counter(
            "tollkeeper_parked_endings_failed",
            "Parked endings that could not be settled; their holds stay open.",
            registry=registry,
        )

    async def run(self) -> None:
        """Settle parked endings until cancelled, through outages."""
        await periodic("parked_endings", self.step, EVERY_S, EVERY_S, (StoreUnavailable,))

    async def step(self) -> float | None:
        """Settle the endings that are free; return 0 when more may be. Raises StoreUnavailable."""
        waited_s = await self._store.oldest_waited_s()
        self._oldest.set(waited_s)
        if not waited_s:
            return None
        free = await self._store.list_free()
        if not free:
            return None
        outages = (StoreUnavailable, BrokenInvariant)
        parked_again = await in_halves(free, self._settle, self._give_up, passing=outages)
        return 0.0 if len(free) > sum(parked_again) else None

    async def _settle(self, endings: list[ParkedEnding]) -> int:
        """Settle endings and forget them; return how many were parked anew."""
        committed = await self._settlements.settle([one.observation for one in endings])
        for changes in committed:
            self._count(changes)
        await self._forget(endings)
        return sum(len(changes.parked) for changes in committed)

    async def _give_up(self, ending: ParkedEnding, _error: Exception) -> int:
        """Forget an ending that cannot be settled. Its hold stays open, and the sweep finds it."""
        self._failed.inc()
        _log.exception("settlement_failed", hold_id=ending.observation.hold_id.hex)
        await self._forget([ending])
        return 0

    async def _forget(self, endings: list[ParkedEnding]) -> None:
        self._crash_points.reach("meter.before_unpark")
        await self._store.forget([one.id for one in endings])
