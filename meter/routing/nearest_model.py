"""The model that a wrong name probably means. Pure, and quick enough for the path of a refusal.

Names are compared by the groups of three letters and digits that they share, with and without the
vendor, so that a missing vendor, a dot for a hyphen and a slip of the finger are found.
"""

from collections.abc import Callable, Collection
from difflib import SequenceMatcher
from typing import Final, NamedTuple

# What one comparison reads of a name; ids of models are shorter.
MAX_NAME_CHARS: Final = 64
# The names with the most groups in common are compared letter by letter.
MOST_COMPARED: Final = 5
# From 0 to 1: the common part of the groups of two names, and of their letters.
_LEAST_SHARED: Final = 0.4
_LEAST_LIKENESS: Final = 0.7


class _Spelling(NamedTuple):
    """A model with the size of one of its spellings."""

    model_id: str
    groups: int


class NearestModels:
    """Finds near names in a catalogue; the index is made anew when its names change."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()
        self._spellings: list[_Spelling] = []
        self._index: dict[str, list[int]] = {}

    def find(
        self, wrong: str, names: Collection[str], may_use: Callable[[str], bool]
    ) -> str | None:
        """Return the nearest name that may be used; None where none is near."""
        if len(names) != len(self._names) or any(name not in self._names for name in names):
            self._read(names)
        asked = _groups(wrong)
        shared: dict[int, int] = {}
        for group in asked:
            for place in self._index.get(group, ()):
                shared[place] = shared.get(place, 0) + 1
        scored: dict[str, float] = {}
        for place, count in shared.items():
            model_id, groups = self._spellings[place]
            score = 2 * count / (len(asked) + groups)
            if score >= _LEAST_SHARED and score > scored.get(model_id, 0):
                scored[model_id] = score
        near = sorted(scored, key=lambda one: (-scored[one], len(one), one))[:MOST_COMPARED]
        plain = _plain(wrong)
        likest = {name: max(_likeness(plain, one) for one in _spellings(name)) for name in near}
        # The shorter name of two that are as near: the other one is a special form.
        near.sort(key=lambda one: (-likest[one], len(one), one))
        return next((one for one in near if likest[one] >= _LEAST_LIKENESS and may_use(one)), None)

    def _read(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._spellings, self._index = [], {}
        for name in sorted(self._names):
            for spelling in _spellings(name):
                groups = _groups(spelling)
                for group in groups:
                    self._index.setdefault(group, []).append(len(self._spellings))
                self._spellings.append(_Spelling(name, len(groups)))


def _spellings(name: str) -> set[str]:
    """Return a name with its vendor, and without."""
    return {name, name.partition("/")[2] or name}


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name[:MAX_NAME_CHARS].lower()))


def _likeness(plain: str, name: str) -> float:
    return SequenceMatcher(None, plain, _plain(name), autojunk=False).ratio()


def _groups(name: str) -> frozenset[str]:
    """Return the groups of three of a name, whose beginning counts as one."""
    plain = f"^{_plain(name)}"
    return frozenset(plain[start : start + 3] for start in range(max(1, len(plain) - 2)))
