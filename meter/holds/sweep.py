"""Ends holds that outlived their requests.

A request that ended before a decision reached Envoy used nothing: its hold is released within
seconds. A hold past its limit whose request is in no log becomes unknown, and is looked up.
"""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.holds.sweep_store import SweepStore
from meter.process.periodic import periodic

TIDY_EVERY_SWEEPS: Final = 60

_log = structlog.get_logger(__name__)


class Sweep:
    """One task of a meter; several meters may sweep at the same time."""

    def __init__(self, store: SweepStore, every_s: float, registry: CollectorRegistry) -> None:
        self._store = store
        self._every_s = every_s
        self._sweeps = 0
        self._swept = Counter(
            "tollkeeper_holds_swept",
            "Holds ended or made unknown by the sweep (undecided, no_entry).",
            ["outcome"],
            registry=registry,
        )

    async def run(self) -> None:
        """Sweep until cancelled, through outages."""
        outages = (StoreUnavailable,)
        await periodic("sweep", self.step, self._every_s, self._every_s, outages)

    async def step(self) -> None:
        """Sweep, and from time to time forget old undecided requests. Raises StoreUnavailable."""
        await self.sweep()
        if self._sweeps % TIDY_EVERY_SWEEPS == 0:
            await self._store.forget_undecided()
        self._sweeps += 1

    async def sweep(self) -> None:
        """End all holds that are due. Raises StoreUnavailable."""
        # The undecided come first: a hold whose request was never sent is released, not looked up.
        for outcome, end_holds in (
            ("undecided", self._store.release_undecided),
            ("no_entry", self._store.expire),
        ):
            if holds := await end_holds():
                self._swept.labels(outcome).inc(holds)
                _log.info("holds_swept", outcome=outcome, holds=holds)
