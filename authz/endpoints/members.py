"""Functions that all rules about a body's members use to read values and to refuse."""

import re
from decimal import Decimal
from typing import Any, Final

from authz.decision import Reason, Refused, deny, echo
from authz.endpoints.advice import TTL, advise_on_member

_CACHE_MEMBERS: Final = frozenset({"type", "ttl"})
_USD: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,18})?", re.ASCII)


def refuse_unknown(members: dict[str, Any], known: frozenset[str], within: str = "") -> None:
    """Refuse members that are not known: nobody can say what they may cost. Null costs nothing."""
    for name in members.keys() - known:
        if members[name] is not None:
            raise unbounded(within + echo(name), advise_on_member(within + name))


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


def asks_long_cache(owner: dict[str, Any], param: str) -> bool:
    """Return whether a prompt is cached for an hour, which has a price of its own.

    Raises Refused for any other duration than five minutes and one hour.
    """
    control = owner.get("cache_control")
    if not isinstance(control, dict):
        return False
    refuse_misspelt(control, _CACHE_MEMBERS)
    if control.get("ttl") in (None, "5m"):
        return False
    if control.get("ttl") != "1h":
        raise unbounded(param, TTL)
    return True


def objects_of(content: object, param: str) -> list[dict[str, Any]]:
    """Return the objects of a content, which may be a text and then has none. Raises Refused."""
    if content is None or isinstance(content, str):
        return []
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise invalid(param, "a string or a list of objects")
    return content


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


def read_usd(value: object, most: int, param: str) -> Decimal:
    """Return an amount of US dollars, a number or the text of one. Raises Refused."""
    text = value if isinstance(value, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Digits without an exponent, and not millions of them.
        text = f"{value:.18f}" if 0 <= value <= most else ""
    if _USD.fullmatch(text) is None or Decimal(text) > most:
        raise invalid(param, f"US dollars from 0 to {most}")
    return Decimal(text).normalize()


def invalid(param: str, expected: str) -> Refused:
    """Return the refusal of a value that its member does not take."""
    return Refused(deny(Reason.INVALID_VALUE, f"'{param}' must be {expected}, or null.", param))


def unbounded(param: str, instead: str) -> Refused:
    """Return the refusal of a member whose cost cannot be bounded.

    `instead` says what to leave out, or what to set in its place.
    """
    message = f"The cost of a request with this '{param}' cannot be bounded before it runs."
    return Refused(deny(Reason.COST_UNBOUNDED, f"{message} {instead}", param))
