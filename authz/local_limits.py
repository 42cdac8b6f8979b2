"""Limits counted in this process: what remains while Redis is away."""

from typing import Final

from cachetools import LRUCache

from authz.decision import LimitStatus
from meter.clock import Clock

PERIOD_S: Final = 60.0
MAX_BUCKETS: Final = 100_000
# A hundredth of a request forgives the rounding of seconds.
_SLACK: Final = 0.01


class LocalLimiter:
    """Token buckets for one of several instances, each of which may admit its share only."""

    def __init__(self, clock: Clock, expected_instances: int) -> None:
        self._clock = clock
        self._instances = expected_instances
        self._full_at_s: LRUCache[str, float] = LRUCache(MAX_BUCKETS)

    def take(self, account_id: str, limit: int) -> LimitStatus:
        """Admit one request, or say how long to wait. Never less than one request a minute."""
        now = self._clock.monotonic_s()
        share = max(1, limit // self._instances)
        step_s = PERIOD_S / share
        full_at = max(self._full_at_s.get(account_id, now), now)
        spare_s = now + PERIOD_S - (full_at + step_s)
        if spare_s < -step_s * _SLACK:
            return LimitStatus(limit, 0, full_at - now, retry_after_s=-spare_s)
        self._full_at_s[account_id] = full_at + step_s
        return LimitStatus(limit, int(spare_s / step_s + _SLACK), full_at + step_s - now)
