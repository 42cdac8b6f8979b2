"""Ends holds that outlived their requests.

A request that ended before a decision reached Envoy used nothing: what was held for it is released
within seconds. A hold past its limit that no log told of becomes unknown, and is looked up.
"""

import asyncio
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.holds.sweep_store import SweepStore

TIDY_EVERY_SWEEPS: Final = 60

_log = structlog.get_logger(__name__)


class Sweep:
    """One task of a meter; several meters may sweep at the same time."""

    def __init__(self, store: SweepStore, every_s: float, registry: CollectorRegistry) -> None:
        self._store = store
        self._every_s = every_s
        self._swept = Counter(
            "tollkeeper_holds_swept",
            "Holds ended or made unknown by the sweep (undecided, no_entry).",
            ["outcome"],
            registry=registry,
        )

    async def run(self) -> None:
        """Sweep for ever, through outages."""
        count = 0
        while True:
            try:
                await self.sweep()
                if count % TIDY_EVERY_SWEEPS == 0:
                    await self._store.forget_undecided()
            except StoreUnavailable as error:
                _log.warning("sweep_waits", reason=str(error))
            count += 1
            await asyncio.sleep(self._every_s)

    async def sweep(self) -> None:
        """End what is to be ended now. Raises StoreUnavailable."""
        self._note("undecided", await self._store.release_undecided())
        self._note("no_entry", await self._store.expire())

    def _note(self, outcome: str, holds: int) -> None:
        if holds:
            self._swept.labels(outcome).inc(holds)
            _log.info("holds_swept", outcome=outcome, holds=holds)
