"""Time: the clock of the machine, test clocks, and what falls due on them."""

import heapq
import itertools
from collections.abc import Callable

Action = Callable[[], None]


class Timeline:
    """A clock that the caller moves, and an agenda of what is due on it.

    Actions run in the order of their due times, each at its own time: while one runs, `now`
    answers when it was due, as if it had run then.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._agenda: list[tuple[int, int, Action]] = []
        self._numbers = itertools.count()
        self.on_earlier: Action = lambda: None

    def now(self) -> int:
        """Return the time in seconds since 1970 in UTC."""
        return self._now

    def next_due(self) -> int | None:
        return self._agenda[0][0] if self._agenda else None

    def at(self, when: int, action: Action) -> None:
        """Run an action once the clock reaches `when`."""
        is_earlier = not self._agenda or when < self._agenda[0][0]
        heapq.heappush(self._agenda, (when, next(self._numbers), action))
        if is_earlier:
            self.on_earlier()

    def advance_to(self, until: int) -> None:
        """Move the clock forward, and run what falls due on the way."""
        while self._agenda and self._agenda[0][0] <= until:
            when, _, action = heapq.heappop(self._agenda)
            self._now = max(self._now, when)
            action()
        self._now = max(self._now, until)


class WallTimeline(Timeline):
    """The time of the machine, plus the seconds that the control API skipped."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(int(clock()))
        self._clock = clock
        self._skipped = 0
        self._is_running = False

    def now(self) -> int:
        return self._now if self._is_running else int(self._clock()) + self._skipped

    def skip(self, seconds: int) -> None:
        """Move the clock forward against the machine's."""
        self._skipped += seconds
        self.catch_up()

    def catch_up(self) -> None:
        """Run what fell due since the last call."""
        until = self.now()
        self._is_running = True
        try:
            self.advance_to(until)
        finally:
            self._is_running = False
