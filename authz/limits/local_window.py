"""A sliding window in this process: the same slots as in Redis, on the monotonic clock. Pure."""

from array import array
from typing import Final

from meter.limits.limits import WINDOW_S

SLOTS_PER_S: Final = 2
# The slot that the window only partly covers counts whole.
SLOTS: Final = WINDOW_S * SLOTS_PER_S + 1
SLOT_US: Final = 1_000_000 // SLOTS_PER_S


class LocalWindow:
    """The amounts of one bucket in the last 60 s. Times are microseconds and never decrease."""

    __slots__ = ("_ceiling", "_counts", "_learnt_us", "_total")

    def __init__(self) -> None:
        # Slot and count of every slot in use, in turn, oldest first.
        self._counts = array("q")
        self._total = 0
        self._ceiling = 0
        self._learnt_us: int | None = None

    def learn(self, now_us: int, spare: int) -> None:
        """Remember the amount that the limit of all instances together still has left."""
        self._ceiling = self._total + spare
        self._learnt_us = now_us

    def ceiling(self, now_us: int) -> int | None:
        """Return the most that may be used here, given the use by others; None once outdated."""
        return None if self._ceiling_ends_us(now_us) == 0 else self._ceiling

    def _ceiling_ends_us(self, now_us: int) -> int:
        if self._learnt_us is None:
            return 0
        return max(0, self._learnt_us + SLOTS * SLOT_US - now_us)

    def forget(self, now_us: int) -> int:
        """Forget the amounts that have left the window; return the total that is in it."""
        counts = self._counts
        last_gone = now_us // SLOT_US - SLOTS
        gone = 0
        while gone < len(counts) and counts[gone] <= last_gone:
            self._total -= counts[gone + 1]
            gone += 2
        if gone:
            del counts[:gone]
        return self._total

    def add(self, now_us: int, amount: int) -> None:
        """Count an amount now."""
        counts = self._counts
        slot = now_us // SLOT_US
        if counts and counts[-2] == slot:
            counts[-1] += amount
        else:
            counts.extend((slot, amount))
        self._total += amount

    def give_back(self, amount: int) -> None:
        """Take an amount out of the youngest slots, because it was counted a moment ago."""
        counts = self._counts
        for at in range(len(counts) - 1, 0, -2):
            taken = min(amount, counts[at])
            counts[at] -= taken
            self._total -= taken
            amount -= taken

    def wait_us(self, now_us: int, amount: int) -> int:
        """Return the time until that amount, or everything, has left the window."""
        counts = self._counts
        for at in range(0, len(counts), 2):
            amount -= counts[at + 1]
            if amount <= 0:
                return (counts[at] + SLOTS) * SLOT_US - now_us
        return max(self.reset_us(now_us), self._ceiling_ends_us(now_us))

    def reset_us(self, now_us: int) -> int:
        """Return the time until the window is empty."""
        return (self._counts[-2] + SLOTS) * SLOT_US - now_us if self._total else 0
