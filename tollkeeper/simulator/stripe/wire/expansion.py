"""The parameter `expand`: objects in the place of their ids, and members shown on demand."""

from typing import Any, Final

from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, bad_parameter
from tollkeeper.simulator.stripe.world import World

DEPTH_MAX: Final = 4
PATHS_MAX: Final = 20
#: Ids that Stripe does not expand.
PLAIN: Final = frozenset({("charge", "payment_method"), ("discount", "subscription")})


def read_paths(parameters: Parameters) -> list[list[str]]:
    """Read `expand[]`. Raises Problem for a path that is too deep."""
    paths = [path.split(".") for path in parameters.texts("expand")]
    if len(paths) > PATHS_MAX:
        raise bad_parameter(f"You cannot expand more than {PATHS_MAX} properties.", "expand")
    for path in paths:
        if len(path) - (path[0] == "data") > DEPTH_MAX:
            raise bad_parameter(
                f"You cannot expand more than {DEPTH_MAX} levels of a property. "
                f"Property: {'.'.join(path)}",
                "expand",
            )
    return paths


def expand(world: World, row: Json, paths: list[list[str]]) -> Json:
    """Return the object with the members of `paths` expanded; the stored one stays as it is."""
    for path in paths:
        row = _expanded(world, row, path, path)
    return row


def _expanded(world: World, row: Json, path: list[str], whole: list[str]) -> Json:
    name, *rest = path
    kind = row.get("object", "")
    include = world.includable.get((kind, name))
    if name not in row and include is None:
        raise _refusal(whole)
    value: Any = row[name] if name in row else include(row) if include else None
    if isinstance(value, str):
        found = None if (kind, name) in PLAIN else world.store.find(value)
        if found is None:
            raise _refusal(whole)
        value = found
    elif not isinstance(value, dict | list | None):
        raise _refusal(whole)
    if rest:
        value = _deeper(world, value, rest, whole)
    return {**row, name: value}


def _deeper(world: World, value: Any, rest: list[str], whole: list[str]) -> Any:
    if isinstance(value, list):
        return [_deeper(world, one, rest, whole) for one in value]
    if isinstance(value, dict):
        return _expanded(world, value, rest, whole)
    return value


def _refusal(path: list[str]) -> Problem:
    joined = ".".join(path)
    return bad_parameter(f"This property cannot be expanded ({joined}).", "expand")
