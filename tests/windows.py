"""Shared by the tests of limits: an oracle that remembers admissions, and short uses."""

from collections.abc import Callable
from dataclasses import dataclass, field

from authz.limits.answer import LimitUse
from meter.limits.limits import WINDOW_S, Limit, LimitKind


def requests(per_minute: int, bucket: str = "account:a", is_shadow: bool = False) -> LimitUse:
    """One request of a bucket."""
    return LimitUse(Limit(bucket, LimitKind.REQUESTS, per_minute, is_shadow), 1)


def tokens(
    per_minute: int, amount: int, bucket: str = "account:a", local_amount: int | None = None
) -> LimitUse:
    """So many tokens of a bucket."""
    return LimitUse(Limit(bucket, LimitKind.TOKENS, per_minute), amount, local_amount)


@dataclass(slots=True)
class Oracle:
    """Knows every admission, and so what any 60 seconds held; times in microseconds."""

    admitted: list[tuple[int, int]] = field(default_factory=list)

    def note(self, at_us: int, amount: int = 1) -> None:
        """Remember an admission."""
        self.admitted.append((at_us, amount))

    def fullest(self) -> int:
        """The most that any window of 60 seconds held; the fullest ones end at an admission."""
        return max((self._in_window(at_us) for at_us, _ in self.admitted), default=0)

    def _in_window(self, end_us: int) -> int:
        start_us = end_us - WINDOW_S * 1_000_000
        return sum(amount for at_us, amount in self.admitted if start_us < at_us <= end_us)


def usable_share(take: Callable[[int], bool], limit: int, minutes: int = 10) -> float:
    """Return what is admitted of the limit while somebody asks without a pause."""
    asked_every_us = min(100_000, 15_000_000 // limit)
    end_us = minutes * WINDOW_S * 1_000_000
    admitted = sum(take(at_us) for at_us in range(0, end_us, asked_every_us))
    return admitted / (limit * minutes)
