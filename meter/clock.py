"""Clocks, which are passed to the code that needs the time, so that tests can set it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, and a monotonic time for intervals."""

    def now(self) -> datetime:
        """Return the present time in UTC, with its time zone."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back; only differences have a meaning."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until `advance` is called."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks on by the same number of seconds."""
        self._now += timedelta(seconds=seconds)
        self._monotonic_s += seconds
