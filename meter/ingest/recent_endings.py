"""Remembers what was settled a moment ago: nearly every ending arrives twice.

A helper of speed alone. What is forgotten goes to Postgres again, where settling is idempotent.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter
from typing import Final
from uuid import UUID

from meter.usage.usage import Observation, Source

# Some seconds of the densest traffic that one machine carries, at about 250 bytes each.
MOST_REMEMBERED: Final = 65_536
_LOGS: Final = frozenset({Source.STREAM, Source.FILE})
_ALL_BUT_SOURCE: Final = attrgetter(
    *(member.name for member in fields(Observation) if member.name != "source")
)


class RecentEndings:
    """The last observations that were settled, by hold, as far as the two logs tell of them."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._seen: OrderedDict[UUID, int] = OrderedDict()

    def fresh(self, observations: Iterable[Observation]) -> list[Observation]:
        """Return the observations that repeat neither earlier ones nor one another.

        Sameness does not ask which of the two logs told of it.
        """
        found: list[Observation] = []
        among: set[int] = set()
        for each in observations:
            if each.source not in _LOGS:
                found.append(each)
                continue
            likeness = _likeness(each)
            if likeness not in among and self._seen.get(each.hold_id) != likeness:
                among.add(likeness)
                found.append(each)
        return found

    def remember(self, settled: Iterable[Observation]) -> None:
        """Note what is in the books now. Never call it for what could not be settled."""
        for observation in settled:
            if observation.source in _LOGS:
                self._seen[observation.hold_id] = _likeness(observation)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)


def _likeness(observation: Observation) -> int:
    """64 bits of everything but the source; equal decimals have equal hashes."""
    return hash(_ALL_BUT_SOURCE(observation))
