"""Options that describe a new or changed key."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from tollkeeper.commands.api_commands import OptionGroup
from tollkeeper.errors import CommandError

# The word that removes a restriction.
NONE: Final = "none"

KeyArgument = Annotated[str, typer.Argument(help="The key's id.", show_default=False)]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option("--scope", help="Scope such as inference or usage:read; may be repeated."),
]
ExpiresInOption = Annotated[
    int | None,
    typer.Option(
        "--expires-in-days", min=1, max=3650, help="Days until the key expires; by default never."
    ),
]
ExpiresAtOption = Annotated[
    str | None,
    typer.Option("--expires-at", help="Time such as 2027-01-31T12:00:00Z, or none for never."),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", help="Model id or pattern with *; may be repeated; none: all models."),
]
AddressOption = Annotated[
    list[str] | None,
    typer.Option(
        "--address", help="Network such as 10.0.0.0/8; may be repeated; none: all networks."
    ),
]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="US dollars per day, week, month or in total: day=5.00; day=none removes it.",
    ),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option("--tag", help="name=value; may be repeated; replaces all tags; none: no tags."),
]

OwnKeysOption = Annotated[
    str | None,
    typer.Option(
        "--own-keys",
        help="Use of the user's provider keys: prefer, only or never; none: as the account has it.",
    ),
]


def _read_limits(texts: Mapping[str, str | None]) -> dict[str, int | None]:
    """Return the limits that were given, null for `none`; raises CommandError for other words."""
    given = {name: text for name, text in texts.items() if text is not None}
    if not all(text == NONE or text.isdecimal() for text in given.values()):
        raise CommandError("A limit is a whole number, or none.")
    return {name: None if text == NONE else int(text) for name, text in given.items()}


LIMITS: Final = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "requests_per_day",
    "requests_per_month",
)
_LimitOption = Annotated[str | None, typer.Option(help="A number, or none.")]
Limits = Annotated[
    Mapping[str, int | None], OptionGroup(dict.fromkeys(LIMITS, _LimitOption), _read_limits)
]
NO_LIMITS: Final[Mapping[str, int | None]] = MappingProxyType({})


def key_members(
    models: Sequence[str] | None,
    addresses: Sequence[str] | None,
    budgets: Sequence[str] | None,
    limits: Mapping[str, int | None],
    tags: Sequence[str] | None,
    own_keys: str | None,
) -> dict[str, Any]:
    """Return the members of a request's body for the options that were given."""
    members: dict[str, Any] = {}
    for name, items in (("allowed_models", models), ("allowed_addresses", addresses)):
        if items:
            members[name] = None if list(items) == [NONE] else list(items)
    if budgets:
        members["budgets"] = {
            name: None if value == NONE else value for name, value in pairs(budgets, "--budget")
        }
    if limits:
        members["limits"] = dict(limits)
    if tags:
        members["tags"] = None if list(tags) == [NONE] else dict(pairs(tags, "--tag"))
    if own_keys is not None:
        members["own_key_mode"] = None if own_keys == NONE else own_keys
    return members


def end_members(expires_in_days: int | None, expires_at: str | None) -> dict[str, Any]:
    """Return the members that set the end of a key, if it was given."""
    members: dict[str, Any] = {}
    if expires_in_days is not None:
        members["expires_in_days"] = expires_in_days
    if expires_at is not None:
        members["expires_at"] = None if expires_at == NONE else expires_at
    return members


def pairs(texts: Sequence[str], option: str, sign: str = "=") -> list[tuple[str, str]]:
    """Split each text at its first `sign`; raises CommandError for a text without one."""
    split = [text.partition(sign) for text in texts]
    if not all(found and name for name, found, _ in split):
        raise CommandError(f"{option} takes name{sign}value.")
    return [(name, value) for name, _, value in split]
