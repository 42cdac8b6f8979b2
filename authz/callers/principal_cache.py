"""A cache of principals: bounded, short-lived, with one look-up at a time for each credential.

An entry lives for less than a second, counted from the beginning of its look-up, so that a
revocation takes effect within a second. A hold judges the credential in Postgres even before.
"""

from collections.abc import Coroutine
from typing import Any, Final

from cachetools import LRUCache

from authz.fresh_answers import FreshAnswer, FreshAnswers, SharedLookups
from authz.metrics import Metrics
from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.identity.principal import (
    ByAccount,
    ByCertificate,
    ByIdentity,
    ByKey,
    ByPass,
    Presented,
    Principal,
    Principals,
)

MAX_CACHED: Final = 100_000
# Look-ups a second of credentials that were never found to be live.
FIRST_LOOKUPS_PER_S: Final = 1_000

Key = tuple[str | bytes, ...]
Found = FreshAnswer[Principal | None]


class PrincipalCache:
    """Implements `meter.identity.principal.Principals` as a cache before another implementation.

    Unknown credentials have a cache of their own, so that a flood of them cannot evict known
    ones. All credentials that were never found share `first_lookups_per_s` look-ups a second, so
    that a flood does not reach Postgres. Credentials that were found before are not held up.
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
        self._known: FreshAnswers[Key, Principal | None] = FreshAnswers(max_cached, clock)
        self._unknown: FreshAnswers[Key, Principal | None] = FreshAnswers(max_cached, clock)
        self._seen_alive: LRUCache[Key, bool] = LRUCache(max_cached)
        self._first_lookups = _Allowance(clock, first_lookups_per_s)
        self._lookups: SharedLookups[Key, Principal | None] = SharedLookups(clock)

    async def find(self, presented: Presented) -> Principal | None:
        """Return the principal, at most `max_age_s` old, or None when there is no live one.

        Raises StoreUnavailable when the answer is not cached and Postgres is away, or when too
        many unknown credentials are presented: without an answer nobody is let in.
        """
        key = cache_key(presented)
        found = self._known.get(key) or self._unknown.get(key)
        if found is not None:
            self._metrics.principal_hits.inc()
            return found.value
        self._metrics.principal_misses.inc()

        def begin(began_s: float) -> Coroutine[Any, Any, Found]:
            if key not in self._seen_alive and not self._first_lookups.take():
                self._metrics.lookups_refused.inc()
                raise StoreUnavailable("too many unknown credentials are presented")
            return self._look_up(key, presented, began_s)

        return (await self._lookups.find(key, begin)).value

    async def _look_up(self, key: Key, presented: Presented, began_s: float) -> Found:
        principal = await self._principals.find(presented)
        # The age counts from the beginning: the store may have read the row at any time since.
        found = FreshAnswer(principal, began_s, began_s + self._max_age_s)
        (self._unknown if principal is None else self._known).put(key, found)
        if principal is not None:
            self._seen_alive[key] = True
        return found


def cache_key(presented: Presented) -> Key:
    """Return the facts that decide which principal is found, and nothing else.

    A JWT that is issued anew for the same caller has the same key. The account and the plan that
    the JWT of another issuer names are part of the key: one subject may act for two accounts.
    """
    match presented:
        case ByKey(digest):
            return ("key", digest)
        case ByPass(verified):
            return ("pass", verified.pass_id)
        case ByIdentity(verified):
            named = (verified.subject, verified.account_subject, verified.plan_id or "")
            return ("identity", verified.issuer_id, *named)
        case ByCertificate(name):
            return ("certificate", name)
        case ByAccount(account_id):
            return ("account", account_id)


class _Allowance:
    """A token bucket: `per_s` a second, and at most as many at once."""

    def __init__(self, clock: Clock, per_s: int) -> None:
        self._clock = clock
        self._per_s = per_s
        self._left = float(per_s)
        self._at_s = clock.monotonic_s()

    def take(self) -> bool:
        """Take one, and return whether there was one to take."""
        now_s = self._clock.monotonic_s()
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
