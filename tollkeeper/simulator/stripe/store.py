"""The objects in memory."""

import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from tollkeeper.simulator.stripe.wire.parameters import CreatedRange, Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, missing

OBJECTS_MAX = 5_000_000
PAGE_DEFAULT = 10
PAGE_MAX = 100


def new_id(prefix: str, characters: int = 24) -> str:
    """Return an id that no other process has given either: clients keep ids for longer than us."""
    return f"{prefix}_{secrets.token_hex(characters // 2)}"


class Collection:
    """Objects of one kind in the order of their making, with an index over some members."""

    def __init__(self, kind: str, indexed: Iterable[str]) -> None:
        self.kind = kind
        self._rows: list[Json | None] = []
        self._positions: dict[str, int] = {}
        self._index: dict[str, dict[str, dict[int, None]]] = {name: {} for name in indexed}

    def __iter__(self) -> Iterator[Json]:
        return (row for row in self._rows if row is not None)

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, row: Json) -> None:
        self._positions[row["id"]] = len(self._rows)
        self._rows.append(row)
        self.reindex(row)

    def reindex(self, row: Json) -> None:
        """Take note of changed members. Old entries stay: a reader compares again."""
        position = self._positions[row["id"]]
        for name, values in self._index.items():
            if row.get(name) is not None:
                values.setdefault(row[name], {})[position] = None

    def remove(self, identifier: str) -> None:
        self._rows[self._positions.pop(identifier)] = None

    def where(self, **members: str | None) -> list[Json]:
        """Return the objects with these members, oldest first; None matches any value."""
        wanted = {name: value for name, value in members.items() if value is not None}
        rows = (self._rows[position] for position in self._candidates(wanted))
        return [row for row in rows if row is not None and _matches(row, wanted)]

    def page(
        self,
        parameters: Parameters,
        url: str,
        keep: Callable[[Json], bool] = lambda row: True,
        **members: str | None,
    ) -> Json:
        """Return one page as a list object, newest first, by Stripe's cursors.

        Reads `limit`, `starting_after` and `ending_before`; the caller has read the filters.
        """
        limit = parameters.integer("limit", 1, PAGE_MAX) or PAGE_DEFAULT
        after, before = parameters.text("starting_after"), parameters.text("ending_before")
        parameters.finish()
        wanted = {name: value for name, value in members.items() if value is not None}
        positions = self._candidates(wanted)
        if before is not None:
            start = self._position(before, "ending_before")
            order: Iterable[int] = positions[bisect_right(positions, start) :]
        else:
            end = len(self._rows) if after is None else self._position(after, "starting_after")
            order = reversed(positions[: bisect_left(positions, end)])
        rows: list[Json] = []
        has_more = False
        for position in order:
            row = self._rows[position]
            if row is not None and _matches(row, wanted) and keep(row):
                if len(rows) == limit:
                    has_more = True
                    break
                rows.append(row)
        if before is not None:
            rows.reverse()
        return {"object": "list", "url": url, "has_more": has_more, "data": rows}

    def _candidates(self, wanted: dict[str, str]) -> Sequence[int]:
        """Return the positions of what may match, in rising order, by the shortest index."""
        shortest: dict[int, None] | None = None
        for name, value in wanted.items():
            found = self._index[name].get(value, {}) if name in self._index else None
            if found is not None and (shortest is None or len(found) < len(shortest)):
                shortest = found
        # An object that got a member late stands out of order in the index.
        return range(len(self._rows)) if shortest is None else sorted(shortest)

    def _position(self, identifier: str, param: str) -> int:
        position = self._positions.get(identifier)
        if position is None:
            raise missing(self.kind, identifier, param, 400)
        return position


class Store:
    """All collections, and every object by its id."""

    def __init__(self) -> None:
        self._collections: dict[str, Collection] = {}
        self._objects: dict[str, Json] = {}

    def collection(self, kind: str, *indexed: str) -> Collection:
        """Make the collection of a kind, which is the `object` member of its rows."""
        self._collections[kind] = Collection(kind, indexed)
        return self._collections[kind]

    def of(self, kind: str) -> Collection:
        """Return the collection of a kind, made before."""
        return self._collections[kind]

    def add(self, row: Json) -> Json:
        """Keep a new object. Raises Problem(503) when OBJECTS_MAX are kept."""
        if len(self._objects) >= OBJECTS_MAX:
            raise Problem(503, "api_error", f"The simulator keeps at most {OBJECTS_MAX} objects.")
        self._objects[row["id"]] = row
        self._collections[row["object"]].add(row)
        return row

    def find(self, identifier: str) -> Json | None:
        return self._objects.get(identifier)

    def get(self, kind: str, identifier: str, param: str | None = None) -> Json:
        """Return an object.

        Raises Problem: 404 if the id stands in the path, 400 if it is the parameter `param`.
        """
        row = self._objects.get(identifier)
        if row is None or row["object"] != kind:
            raise missing(kind, identifier, param or "id", 400 if param else 404)
        return row

    def remove(self, row: Json) -> None:
        del self._objects[row["id"]]
        self._collections[row["object"]].remove(row["id"])


def by_created(parameters: Parameters) -> Callable[[Json], bool]:
    """Read the filter `created`."""
    created = CreatedRange(parameters)
    return lambda row: row["created"] in created


def _matches(row: Json, wanted: dict[str, str]) -> bool:
    return all(row.get(name) == value for name, value in wanted.items())
