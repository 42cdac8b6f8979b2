"""Limits that refused a moment ago, and cannot have room yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from authz.decision import LimitStatus
from authz.limits.answer import BucketState, LimitAnswer, LimitUse
from meter.clock import Clock
from meter.limits.limits import Limit, LimitKind

MAX_BUCKETS: Final = 10_000
# A longer time would save little, and a limit may be lifted, or Redis emptied, meanwhile.
REMEMBERED_S: Final = 1.0
_MICROS_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The monotonic times at which a bucket has room, and at which it is empty again."""

    asked_at_s: float
    room_at_s: float
    whole_at_s: float


class RecentRefusals:
    """Remembers which buckets of requests are full.

    Requests leave such a bucket at known instants only, and none is given back, so a check before
    the first of these instants would be refused again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: LRUCache[Limit, _Refusal] = LRUCache(MAX_BUCKETS)

    def note(
        self, uses: Sequence[LimitUse], states: Sequence[BucketState], asked_at_s: float
    ) -> None:
        """Remember what refused. `asked_at_s` is no later than the answer was made."""
        for use, state in zip(uses, states, strict=True):
            limit = use.limit
            is_full = state.spare < 0 and state.wait_us > 0 and use.amount == 1
            if is_full and limit.kind is LimitKind.REQUESTS and not limit.is_shadow:
                self._refusals[limit] = _Refusal(
                    asked_at_s,
                    asked_at_s + state.wait_us / _MICROS_PER_S,
                    asked_at_s + state.reset_us / _MICROS_PER_S,
                )

    def find(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """Return the refusal by the limit that takes longest; None where all may have room."""
        if not self._refusals:
            return None
        now_s = self._clock.monotonic_s()
        found = [
            (refusal, limit)
            for limit in limits
            if (refusal := self._refusals.get(limit)) is not None
            and now_s < min(refusal.room_at_s, refusal.asked_at_s + REMEMBERED_S)
        ]
        if not found:
            return None
        refusal, limit = max(found, key=lambda each: each[0].room_at_s)
        status = LimitStatus(limit.kind, limit.most, 0, refusal.whole_at_s - now_s)
        return LimitAnswer((status,), limit, refusal.room_at_s - now_s, ())

    def forget(self) -> None:
        """Forget every refusal, because Redis may have lost what it counted."""
        self._refusals.clear()
