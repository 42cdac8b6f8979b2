"""Findings of the checker: the invariant that does not hold, and for whom."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

SHOWN_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """One invariant that does not hold. `ids` are of holds, generations, accounts or tags."""

    invariant: str
    what: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.ids[:SHOWN_MOST])
        more = f" and {len(self.ids) - SHOWN_MOST} more" if len(self.ids) > SHOWN_MOST else ""
        return f"{self.invariant}: {self.what}: {shown}{more}"


@dataclass(slots=True)
class Findings:
    """Failures as they are found."""

    failures: list[Failure] = field(default_factory=list)

    def require_none(self, invariant: str, what: str, ids: Iterable[object]) -> int:
        """A failure unless there are no such ids; returns how many there are."""
        found = tuple(sorted(map(str, ids)))
        if found:
            self.failures.append(Failure(invariant, what, found))
        return len(found)
