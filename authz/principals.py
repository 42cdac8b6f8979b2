"""A cache of principals: bounded, short-lived, and one look-up at a time for each credential.

A principal is remembered for less than a second, counted from when its look-up began, so that a
revocation shows within a second. Even before that the hold judges the credential in Postgres.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from cachetools import TLRUCache

from authz.metrics import Metrics
from meter.accounts import Principal
from meter.clock import Clock
from meter.ports import Principals

MAX_CACHED: Final = 100_000


@dataclass(frozen=True, slots=True)
class _Found:
    principal: Principal | None
    stale_at_s: float


_Cache = TLRUCache[bytes, _Found]


class PrincipalCache:
    """Implements `meter.ports.Principals` before another one.

    Unknown credentials are remembered apart, so that a flood of them cannot push out known ones.
    """

    def __init__(
        self,
        principals: Principals,
        clock: Clock,
        metrics: Metrics,
        max_age_s: float,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._principals = principals
        self._clock = clock
        self._metrics = metrics
        self._max_age_s = max_age_s
        self._known: _Cache = _cache(max_cached, clock)
        self._unknown: _Cache = _cache(max_cached, clock)
        self._lookups: dict[bytes, asyncio.Task[Principal | None]] = {}

    async def find_principal(self, digest: bytes) -> Principal | None:
        """The principal of a live credential, at most `max_age_s` old.

        Raises StoreUnavailable when it is not cached and Postgres is away: nobody is let in
        because nobody could be asked.
        """
        found = self._known.get(digest) or self._unknown.get(digest)
        if found is not None:
            self._metrics.principal_hits.inc()
            return found.principal
        self._metrics.principal_misses.inc()
        lookup = self._lookups.get(digest)
        if lookup is None:
            lookup = asyncio.ensure_future(self._look_up(digest, self._clock.monotonic_s()))
            self._lookups[digest] = lookup
            lookup.add_done_callback(lambda done: self._forget_lookup(digest, done))
        # Whoever leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(lookup)

    async def _look_up(self, digest: bytes, began_s: float) -> Principal | None:
        principal = await self._principals.find_principal(digest)
        found = _Found(principal, began_s + self._max_age_s)
        (self._unknown if principal is None else self._known)[digest] = found
        return principal

    def _forget_lookup(self, digest: bytes, done: "asyncio.Task[Principal | None]") -> None:
        del self._lookups[digest]
        if not done.cancelled():
            # Where everybody left, nobody looks at the failure; the loop would complain.
            done.exception()


def _cache(max_cached: int, clock: Clock) -> _Cache:
    return TLRUCache(
        max_cached, ttu=lambda _digest, found, _now: found.stale_at_s, timer=clock.monotonic_s
    )
