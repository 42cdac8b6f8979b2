"""The day or month (UTC) of a bucket, as this process knows it. Pure.

Redis counts for all instances and may lose its data. So each instance remembers the highest count
that Redis told it, and passes it with the next question: a Redis that counts less takes it over.
"""

from meter.limits.limits import LimitWindow


class CalendarWindow:
    """The amounts of one bucket until its window ends. Times are microseconds, monotonic.

    It has the methods of LocalWindow. Amounts never leave before the end, when all leave together.
    """

    __slots__ = ("_ceiling", "_ends_us", "_known", "_total", "number")

    def __init__(self, number: LimitWindow, ends_us: int) -> None:
        self.number = number
        self._ends_us = ends_us
        self._total = 0
        self._known = 0
        self._ceiling: int | None = None

    def has_ended(self, now_us: int) -> bool:
        """Return whether the day or month is over."""
        return now_us >= self._ends_us

    def known(self, now_us: int) -> int:
        """Return the highest count of all instances that Redis told of this day or month."""
        return 0 if self.has_ended(now_us) else self._known

    def remember(self, count: int, ends_us: int) -> None:
        """Remember the count that Redis told, and when Redis' own day or month ends."""
        self._known = count
        self._ends_us = ends_us

    def report(self, amount: int) -> None:
        """Note that Redis was told of an amount that was admitted without it."""
        self._known += amount

    def learn(self, now_us: int, spare: int) -> None:
        """Remember the amount that the limit of all instances together still has left."""
        self._ceiling = self.forget(now_us) + spare

    def ceiling(self, now_us: int) -> int | None:
        """Return the most that may be used here, given the use by others; None once outdated."""
        return None if self.has_ended(now_us) else self._ceiling

    def forget(self, now_us: int) -> int:
        """Return the total; nothing once the window has ended."""
        return 0 if self.has_ended(now_us) else self._total

    def add(self, now_us: int, amount: int) -> None:
        """Count an amount now."""
        self._total += amount

    def give_back(self, amount: int) -> None:
        """Take an amount back that was counted a moment ago."""
        self._total = max(0, self._total - amount)

    def wait_us(self, now_us: int, amount: int) -> int:
        """Return the time until everything has left the window."""
        return max(0, self._ends_us - now_us)

    def reset_us(self, now_us: int) -> int:
        """Return the time until the window is empty."""
        return self.wait_us(now_us, 0) if self._total else 0
