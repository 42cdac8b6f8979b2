"""Functions that all rules about a body's members use to read values and to refuse."""

from typing import Any

from authz.decision import Reason, Refused, deny, echo


def refuse_misspelt(members: dict[str, Any], names: frozenset[str]) -> None:
    """Refuse other letter cases of these names: to readers that ignore case, they are the same."""
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
    """Refuse a long prompt cache: writing it costs more than the catalogue lists."""
    control = owner.get("cache_control")
    if isinstance(control, dict) and control.get("ttl") not in (None, "5m"):
        raise unbounded(param, "Prompt caches longer than five minutes have no listed price.")


def count(owner: dict[str, Any], name: str, most: int, param: str | None = None) -> int | None:
    """Return a positive integer, or None where the member is absent or null.

    Raises Refused for anything else, `true` and `1.0` included.
    """
    value = owner.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise invalid(param or name, f"an integer from 1 to {most}")
    return value


def invalid(param: str, expected: str) -> Refused:
    """Return the refusal of a value that its member does not take."""
    return Refused(deny(Reason.INVALID_VALUE, f"'{param}' must be {expected}, or null.", param))


def unbounded(param: str, why: str = "") -> Refused:
    """Return the refusal of a member whose cost cannot be bounded."""
    message = f"The cost of a request with this '{param}' cannot be bounded before it runs."
    return Refused(deny(Reason.COST_UNBOUNDED, f"{message} {why}".rstrip(), param))
