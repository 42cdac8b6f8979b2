"""Limits that this process counts itself while Redis is away."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from authz.limits.answer import NEVER, LimitAnswer, Standing, Taking, to_answer
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

    def take(self, takings: Sequence[Taking]) -> LimitAnswer:
        """Admit one check in all of its buckets, or in none."""
        now_us = self._now_us()
        judged = [self._judge(taking, now_us) for taking in takings]
        pairs = list(zip(takings, judged, strict=True))
        if all(spare >= 0 or taking.limit.is_shadow for taking, (spare, _) in pairs):
            self.note(takings)
        resets = [self._window(taking.limit).reset_us(now_us) for taking in takings]
        return to_answer(
            takings,
            [Standing(*judgement, reset) for judgement, reset in zip(judged, resets, strict=True)],
        )

    def note(self, takings: Sequence[Taking]) -> None:
        """Count a check that was admitted, here or by Redis."""
        now_us = self._now_us()
        for taking in takings:
            window = self._window(taking.limit)
            window.forget(now_us)
            window.add(now_us, _cost(taking))

    def learn(self, takings: Sequence[Taking], standings: Sequence[Standing]) -> None:
        """Remember the rest that Redis has left, for the time when Redis is away."""
        now_us = self._now_us()
        for taking, standing in zip(takings, standings, strict=True):
            left = standing.spare if standing.spare >= 0 else standing.spare + taking.amount
            self._window(taking.limit).learn(now_us, max(0, left) // self._instances)

    def give_back(self, takings: Sequence[Taking]) -> None:
        """Undo a `take` of a moment ago, because Redis has refused the check."""
        for taking in takings:
            self._window(taking.limit).give_back(_cost(taking))

    def _judge(self, taking: Taking, now_us: int) -> tuple[int, int]:
        """Return what is left of the share, and the microseconds until the amount fits."""
        window = self._window(taking.limit)
        total = window.forget(now_us)
        limit = taking.limit.per_minute
        ceiling = window.ceiling(now_us)
        share = max(1, limit // self._instances)
        spare = (share if ceiling is None else min(share, ceiling)) - total - _cost(taking)
        if taking.amount > limit:
            return spare, NEVER
        if spare >= 0:
            return spare, 0
        if total == 0 and (ceiling is None or ceiling > 0):
            return 0, 0
        return spare, window.wait_us(now_us, -spare)

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


def _cost(taking: Taking) -> int:
    return max(taking.amount, taking.local_amount or 0)
