"""Remembers what was settled a moment ago: nearly every ending arrives twice.

A helper of speed alone. What is forgotten goes to Postgres again, where settling is idempotent.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from uuid import UUID

from meter.usage import Observation, Source

# Some seconds of the densest traffic that one machine carries, at about 250 bytes each.
MOST_REMEMBERED: Final = 65_536
_LOGS: Final = frozenset({Source.STREAM, Source.FILE})


class RecentEndings:
    """The last observations that were settled, by hold, as far as the two logs tell of them."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._seen: OrderedDict[UUID, int] = OrderedDict()

    def fresh(self, observations: Iterable[Observation]) -> list[Observation]:
        """Those that are not identical, but for their source, with what was settled before."""
        return [each for each in observations if not self._is_repeat(each)]

    def remember(self, settled: Iterable[Observation]) -> None:
        """Note what is in the books now. Never call it for what could not be settled."""
        for observation in settled:
            if observation.source in _LOGS:
                self._seen[observation.hold_id] = _likeness(observation)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def _is_repeat(self, observation: Observation) -> bool:
        if observation.source not in _LOGS:
            return False
        known = self._seen.get(observation.hold_id)
        return known is not None and known == _likeness(observation)


def _likeness(observation: Observation) -> int:
    """64 bits of everything but the source; equal decimals have equal hashes."""
    return hash(replace(observation, source=Source.STREAM))
