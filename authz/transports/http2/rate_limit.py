"""A rate that one connection may not exceed."""

from dataclasses import dataclass
from time import monotonic


@dataclass(slots=True)
class RateLimit:
    """So many a second, counted in whole seconds."""

    most_per_s: int
    _second: int = 0
    _count: int = 0

    def is_exceeded(self) -> bool:
        """Count one more, and say whether that was too many."""
        second = int(monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count > self.most_per_s
