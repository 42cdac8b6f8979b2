"""Keeps the usual use of each model in Postgres, from what every meter settles.

A running statistic, outside the transactions of settlements: no settlement waits for a row that
all requests of a model share, and what a crash loses makes guesses a little less exact.
"""

import time
from collections.abc import Callable
from typing import Final, NoReturn

from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.process.periodic import periodic
from meter.settlement.changes import SettlementChanges, UseKey
from meter.settlement.usual_use import UsualUse

_QUERIES: Final = queries("meter.settlement")
_ADD_USES: Final = _QUERIES["add_uses"]
_FORGET_USES: Final = _QUERIES["forget_uses"]

WRITE_EVERY_S: Final = 5.0
RETRY_S: Final = 5.0
# Sums over more requests than this are halved: the last thousand or so count.
REQUESTS_REMEMBERED: Final = 1_000
# Models, endpoints and accounts with news that was not written yet.
KEYS_LIMIT: Final = 20_000
FORGET_EVERY_S: Final = 3_600.0
FORGET_AFTER_DAYS: Final = 60


class UsualUses:
    """Adds up what settled requests used, and writes the sums every few seconds."""

    def __init__(
        self,
        pool: PostgresPool,
        registry: CollectorRegistry,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._monotonic = monotonic
        self._added: dict[UseKey, UsualUse] = {}
        self._forget_at_s = monotonic()
        self._dropped = Counter(
            "tollkeeper_usual_uses_dropped",
            "Settled requests left out of the statistic of usual costs, for want of room.",
            registry=registry,
        )

    def note(self, changes: SettlementChanges) -> None:
        """Add what a committed batch used; never waits, and drops what has no room."""
        for key, use in changes.uses.items():
            self._add(key, use)

    async def run(self) -> NoReturn:
        """Write until cancelled, through outages of Postgres."""
        await periodic("usual_use", self.write, WRITE_EVERY_S, RETRY_S, (StoreUnavailable,))

    async def write(self) -> None:
        """Write what was added since the last time. Raises StoreUnavailable, and loses nothing."""
        now_s = self._monotonic()
        if now_s >= self._forget_at_s:
            async with acquire(self._pool) as connection:
                await connection.execute(_FORGET_USES, FORGET_AFTER_DAYS)
            self._forget_at_s = now_s + FORGET_EVERY_S
        added, self._added = self._added, {}
        if not added:
            return
        # One order in all meters, and no other locks: two of them never wait in a circle.
        keys = sorted(added)
        uses = [added[key] for key in keys]
        try:
            async with acquire(self._pool) as connection:
                await connection.execute(
                    _ADD_USES,
                    [model_id for model_id, _, _ in keys],
                    [endpoint for _, endpoint, _ in keys],
                    [account_id for _, _, account_id in keys],
                    [use.requests for use in uses],
                    [use.prompt_bound_picos for use in uses],
                    [use.prompt_picos for use in uses],
                    [use.completion_tokens for use in uses],
                    REQUESTS_REMEMBERED,
                )
        except StoreUnavailable:
            for key, use in added.items():
                self._add(key, use)
            raise

    def _add(self, key: UseKey, use: UsualUse) -> None:
        known = self._added.get(key)
        if known is None and len(self._added) >= KEYS_LIMIT:
            self._dropped.inc(use.requests)
        else:
            self._added[key] = use if known is None else known.plus(use)
