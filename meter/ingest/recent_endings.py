"""Remembers what was settled a moment ago: with both logs, every ending arrives twice.

A helper of speed alone. What is forgotten goes to Postgres again, where settling is idempotent.
"""

from collections import OrderedDict
from typing import Final

from meter.ingest.ending import EntryFacts

# Some seconds of the densest traffic that one machine carries, at about 250 bytes each.
MOST_REMEMBERED: Final = 65_536


class RecentEndings:
    """The last facts that were settled, by hold: 64 bits of each.

    Facts are known again only where all of them are the same, whichever log told them. A line with
    other usage, another status or another cost is new, and goes to the books.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def knows(self, facts: EntryFacts) -> bool:
        """Return whether just these facts are in the books already."""
        likeness = self._seen.get(facts.hold_id)
        return likeness is not None and likeness == hash(facts)

    def remember(self, facts: EntryFacts) -> None:
        """Note what is in the books now. Never call it for what could not be settled."""
        self._seen[facts.hold_id] = hash(facts)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)
