"""Limits that this process counts itself while Redis is away."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from authz.limits.answer import NEVER, BucketState, LimitAnswer, LimitUse, to_answer
from authz.limits.local_window import LocalWindow
from meter.clock import Clock
from meter.limits.limits import Limit

# A window that is used in every one of its slots takes 2 KiB.
MAX_BUCKETS: Final = 20_000
_MICROS_PER_S: Final = 1_000_000


class LocalLimiter:
    """Counts the share of one among several instances.

    A share is never nothing: an empty window admits one request, unless the request asks for more
    than the whole limit. Checks that Redis admitted are noted here too, so that their amounts are
    not given out a second time when Redis goes away. So is the rest that Redis had left, because
    the other instances may have used up more than their shares.
    """

    def __init__(self, clock: Clock, expected_instances: int) -> None:
        self._clock = clock
        self._instances = expected_instances
        self._windows: OrderedDict[str, LocalWindow] = OrderedDict()

    def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """Admit one check in all of its buckets, or in none."""
        now_us = self._now_us()
        judged: list[tuple[int, int]] = []
        for use in uses:
            window = self._window(use.limit)
            total = window.forget(now_us)
            limit = use.limit.per_minute
            ceiling = window.ceiling(now_us)
            share = max(1, limit // self._instances)
            spare = (share if ceiling is None else min(share, ceiling)) - total - _cost(use)
            if use.amount > limit:
                wait_us = NEVER
            elif spare >= 0:
                wait_us = 0
            elif total == 0 and (ceiling is None or ceiling > 0):
                # An empty window admits one request, however small the share is.
                spare = wait_us = 0
            else:
                wait_us = window.wait_us(now_us, -spare)
            judged.append((spare, wait_us))
        if all(
            spare >= 0 or use.limit.is_shadow for use, (spare, _) in zip(uses, judged, strict=True)
        ):
            self.note(uses)
        # A reset counts from the last request, so it is read after this one was counted.
        states = [
            BucketState(spare, wait_us, self._window(use.limit).reset_us(now_us))
            for use, (spare, wait_us) in zip(uses, judged, strict=True)
        ]
        return to_answer(uses, states)

    def note(self, uses: Sequence[LimitUse]) -> None:
        """Count a check that was admitted, here or by Redis."""
        now_us = self._now_us()
        for use in uses:
            window = self._window(use.limit)
            window.forget(now_us)
            window.add(now_us, _cost(use))

    def learn(self, uses: Sequence[LimitUse], states: Sequence[BucketState]) -> None:
        """Remember the rest that Redis has left, for the time when Redis is away."""
        now_us = self._now_us()
        for use, state in zip(uses, states, strict=True):
            left = state.spare if state.spare >= 0 else state.spare + use.amount
            self._window(use.limit).learn(now_us, max(0, left) // self._instances)

    def give_back(self, uses: Sequence[LimitUse]) -> None:
        """Undo a `take` of a moment ago, because Redis has refused the check."""
        for use in uses:
            self._window(use.limit).give_back(_cost(use))

    def _window(self, limit: Limit) -> LocalWindow:
        window = self._windows.get(limit.key)
        if window is not None:
            self._windows.move_to_end(limit.key)
            return window
        if len(self._windows) >= MAX_BUCKETS:
            self._windows.popitem(last=False)
        window = self._windows[limit.key] = LocalWindow()
        return window

    def _now_us(self) -> int:
        return int(self._clock.monotonic_s() * _MICROS_PER_S)


def _cost(use: LimitUse) -> int:
    return max(use.amount, use.local_amount or 0)
