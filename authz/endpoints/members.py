"""Functions that all rules about a body's members use to read values and to refuse."""

from typing import Any

from authz.decision import Reason, Refused, deny, echo


def refuse_misspelt(members: dict[str, Any], names: frozenset[str]) -> None:
    """Some JSON readers ignore case: a second spelling of a name would be a second value."""
    for name in members:
        if name not in names and name.casefold() in names:
            raise Refused(
                deny(
                    Reason.INVALID_VALUE,
                    f"The member '{echo(name)}' must be written '{name.casefold()}'.",
                    echo(name),
                )
            )


def refuse_long_cache(owner: dict[str, Any], param: str) -> None:
    """An hour of prompt cache is written at a higher price than the catalogue lists."""
    control = owner.get("cache_control")
    if isinstance(control, dict) and control.get("ttl") not in (None, "5m"):
        raise unbounded(param, "Prompt caches longer than five minutes have no listed price.")


def count(owner: dict[str, Any], name: str, most: int, param: str | None = None) -> int | None:
    """A positive integer, or None where it is absent or null. `true` and `1.0` are neither."""
    value = owner.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise invalid(param or name, f"an integer from 1 to {most}")
    return value


def invalid(param: str, expected: str) -> Refused:
    """The refusal of a value that is not what its member takes."""
    return Refused(deny(Reason.INVALID_VALUE, f"'{param}' must be {expected}, or null.", param))


def unbounded(param: str, why: str = "") -> Refused:
    """The refusal of a member whose cost nobody can bound."""
    message = f"The cost of a request with this '{param}' cannot be bounded before it runs."
    return Refused(deny(Reason.COST_UNBOUNDED, f"{message} {why}".rstrip(), param))
