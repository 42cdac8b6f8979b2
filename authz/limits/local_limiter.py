"""Limits that this process counts itself while Redis is away."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from authz.limits.answer import NEVER, BucketState, LimitAnswer, LimitUse, to_answer
from authz.limits.calendar_window import CalendarWindow
from authz.limits.local_window import LocalWindow
from meter.clock import Clock
from meter.limits.limits import Limit, LimitWindow, end_of_window

# A window that is used in every one of its slots takes 2 KiB.
MAX_BUCKETS: Final = 20_000
_MICROS_PER_S: Final = 1_000_000
_MICROSECOND: Final = timedelta(microseconds=1)


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
        self._windows: OrderedDict[str, LocalWindow | CalendarWindow] = OrderedDict()

    def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """Admit one check in all of its buckets, or in none."""
        now_us = self._now_us()
        judged: list[tuple[int, int]] = []
        for use in uses:
            window = self._window(use.limit, now_us)
            total = window.forget(now_us)
            limit = use.limit.most
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
            BucketState(spare, wait_us, self._window(use.limit, now_us).reset_us(now_us))
            for use, (spare, wait_us) in zip(uses, judged, strict=True)
        ]
        return to_answer(uses, states)

    def note(self, uses: Sequence[LimitUse]) -> None:
        """Count a check that was admitted, here or by Redis."""
        now_us = self._now_us()
        for use in uses:
            window = self._window(use.limit, now_us)
            window.forget(now_us)
            window.add(now_us, _cost(use))

    def learn(self, uses: Sequence[LimitUse], states: Sequence[BucketState]) -> None:
        """Remember the rest that Redis has left, for the time when Redis is away."""
        now_us = self._now_us()
        for use, state in zip(uses, states, strict=True):
            self._learn(self._window(use.limit, now_us), now_us, use, state)

    def note_and_learn(self, uses: Sequence[LimitUse], states: Sequence[BucketState]) -> None:
        """Do both, for each check that Redis admitted, with one look at each window."""
        now_us = self._now_us()
        for use, state in zip(uses, states, strict=True):
            window = self._window(use.limit, now_us)
            window.forget(now_us)
            window.add(now_us, _cost(use))
            self._learn(window, now_us, use, state)

    def _learn(
        self, window: LocalWindow | CalendarWindow, now_us: int, use: LimitUse, state: BucketState
    ) -> None:
        spare = state.spare
        left = spare if spare >= 0 else max(0, spare + use.amount)
        window.learn(now_us, left // self._instances)

    def give_back(self, uses: Sequence[LimitUse]) -> None:
        """Undo a `take` of a moment ago, because Redis has refused the check."""
        now_us = self._now_us()
        for use in uses:
            self._window(use.limit, now_us).give_back(_cost(use))

    def known(self, limit: Limit) -> int:
        """Return the count of all instances that this one knows of; 0 for a minute.

        A minute that Redis has lost is over soon; a month is not.
        """
        if limit.window is LimitWindow.MINUTE:
            return 0
        window = self._windows.get(limit.key)
        return window.known(self._now_us()) if isinstance(window, CalendarWindow) else 0

    def remember(
        self,
        uses: Sequence[LimitUse],
        states: Sequence[BucketState],
        is_counted: bool,
        asked_at_s: float,
    ) -> None:
        """Remember what Redis has counted in days and months. `asked_at_s` is not later."""
        for use, state in zip(uses, states, strict=True):
            if use.limit.window is not LimitWindow.MINUTE:
                window = self._window(use.limit, self._now_us())
                assert isinstance(window, CalendarWindow)
                count = use.limit.most - state.spare - (0 if is_counted else use.amount)
                ends_us = int(asked_at_s * _MICROS_PER_S) + state.reset_us
                window.remember(count if state.reset_us else 0, ends_us)

    def new_window(self, limit: Limit) -> LocalWindow | CalendarWindow:
        """Return an empty window of a limit."""
        if limit.window is LimitWindow.MINUTE:
            return LocalWindow()
        now = self._clock.now()
        left = end_of_window(limit.window, now) - now
        return CalendarWindow(limit.window, self._now_us() + left // _MICROSECOND)

    def report(self, limit_key: str, amount: int) -> None:
        """Note that Redis was told of an amount that was admitted without it."""
        window = self._windows.get(limit_key)
        if isinstance(window, CalendarWindow):
            window.report(amount)

    def _window(self, limit: Limit, now_us: int) -> LocalWindow | CalendarWindow:
        key = limit.key
        window = self._windows.get(key)
        if window is not None:
            if isinstance(window, CalendarWindow) and window.has_ended(now_us):
                window = self._windows[key] = self.new_window(limit)
            self._windows.move_to_end(key)
            return window
        if len(self._windows) >= MAX_BUCKETS:
            self._windows.popitem(last=False)
        window = self._windows[key] = self.new_window(limit)
        return window

    def _now_us(self) -> int:
        return int(self._clock.monotonic_s() * _MICROS_PER_S)


def _cost(use: LimitUse) -> int:
    amount, local = use.amount, use.local_amount
    return amount if local is None or local < amount else local
