"""A cache of principals: bounded, short-lived, and one look-up at a time for each credential.

A principal is remembered for less than a second, counted from when its look-up began, so that a
revocation shows within a second. Even before that the hold judges the credential in Postgres.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from cachetools import LRUCache, TLRUCache

from authz.metrics import Metrics
from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.identity.principal import Principal, Principals
from meter.jwts.verifying import VerifiedIdentity

MAX_CACHED: Final = 100_000
# How many look-ups of credentials never seen alive may begin in a second.
FIRST_LOOKUPS_PER_S: Final = 1_000

Key = tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    principal: Principal | None
    stale_at_s: float


_Cache = TLRUCache[Key, _Found]


class PrincipalCache:
    """Implements `meter.identity.principal.Principals` before another one.

    Unknown credentials are remembered apart, so that a flood of them cannot push out known ones.
    Those never seen alive share a number of look-ups a second, so that a flood does not reach
    Postgres; those seen before do not wait behind them.
    """

    def __init__(
        self,
        principals: Principals,
        clock: Clock,
        metrics: Metrics,
        max_age_s: float,
        max_cached: int = MAX_CACHED,
        first_lookups_per_s: int = FIRST_LOOKUPS_PER_S,
    ) -> None:
        self._principals = principals
        self._clock = clock
        self._metrics = metrics
        self._max_age_s = max_age_s
        self._known: _Cache = _cache(max_cached, clock)
        self._unknown: _Cache = _cache(max_cached, clock)
        self._seen_alive: LRUCache[Key, bool] = LRUCache(max_cached)
        self._first_lookups = _Allowance(clock, first_lookups_per_s)
        self._lookups: dict[Key, asyncio.Task[Principal | None]] = {}

    async def find_by_secret(self, digest: bytes) -> Principal | None:
        """Behind an API key, at most `max_age_s` old.

        Raises StoreUnavailable, like all of these, when it is not cached and Postgres is away:
        nobody is let in because nobody could be asked.
        """
        return await self._find(
            ("secret", digest), partial(self._principals.find_by_secret, digest)
        )

    async def find_by_pass(self, pass_id: str) -> Principal | None:
        """Behind a JWT of ours."""
        return await self._find(("pass", pass_id), partial(self._principals.find_by_pass, pass_id))

    async def find_by_identity(self, identity: VerifiedIdentity) -> Principal | None:
        """Behind a JWT of another issuer. The account and plan that it names are asked as well."""
        named = (identity.subject, identity.account_subject, identity.plan_id or "")
        look_up = partial(self._principals.find_by_identity, identity)
        return await self._find(("identity", identity.issuer_id, *named), look_up)

    async def find_by_certificate(self, name: str) -> Principal | None:
        """Behind a client certificate."""
        look_up = partial(self._principals.find_by_certificate, name)
        return await self._find(("certificate", name), look_up)

    async def find_issued(self, account_id: str) -> Principal | None:
        """For an account that a trusted route names."""
        look_up = partial(self._principals.find_issued, account_id)
        return await self._find(("issued", account_id), look_up)

    async def _find(
        self, key: Key, look_up: Callable[[], Awaitable[Principal | None]]
    ) -> Principal | None:
        found = self._known.get(key) or self._unknown.get(key)
        if found is not None:
            self._metrics.principal_hits.inc()
            return found.principal
        self._metrics.principal_misses.inc()
        task = self._lookups.get(key)
        if task is None:
            if key not in self._seen_alive and not self._first_lookups.take():
                self._metrics.lookups_refused.inc()
                raise StoreUnavailable("too many unknown credentials are presented")
            task = asyncio.ensure_future(self._look_up(key, look_up, self._clock.monotonic_s()))
            self._lookups[key] = task
            task.add_done_callback(lambda done: self._forget_lookup(key, done))
        # Whoever leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def _look_up(
        self, key: Key, look_up: Callable[[], Awaitable[Principal | None]], began_s: float
    ) -> Principal | None:
        principal = await look_up()
        found = _Found(principal, began_s + self._max_age_s)
        (self._unknown if principal is None else self._known)[key] = found
        if principal is not None:
            self._seen_alive[key] = True
        return principal

    def _forget_lookup(self, key: Key, done: "asyncio.Task[Principal | None]") -> None:
        del self._lookups[key]
        if not done.cancelled():
            # Where everybody left, nobody looks at the failure; the loop would complain.
            done.exception()


class _Allowance:
    """So many a second, and at most as many at once."""

    def __init__(self, clock: Clock, per_s: int) -> None:
        self._clock = clock
        self._per_s = per_s
        self._left = float(per_s)
        self._at_s = clock.monotonic_s()

    def take(self) -> bool:
        """Whether one more may begin now."""
        now_s = self._clock.monotonic_s()
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _cache(max_cached: int, clock: Clock) -> _Cache:
    return TLRUCache(
        max_cached, ttu=lambda _key, found, _now: found.stale_at_s, timer=clock.monotonic_s
    )
