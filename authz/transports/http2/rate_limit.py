"""A rate that one connection may not exceed."""

from dataclasses import dataclass
from time import monotonic


@dataclass(slots=True)
class RateLimit:
    """Counts events in whole seconds, and compares them with the most per second."""

    most_per_s: int
    _second: int = 0
    _count: int = 0

    def is_exceeded(self) -> bool:
        """Count one more event; return whether there are too many in this second."""
        second = int(monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count > self.most_per_s
