"""Commands that ask the meter API, and options that several of them have in common."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import typer

from tollkeeper.api_client import connect
from tollkeeper.tables import ApiOption, HomeOption

F = TypeVar("F", bound=Callable[..., None])

# In this order in the help, before the option for the output.
_OPTIONS = {"api": ApiOption, "home": HomeOption}


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """Options that commands take together as one parameter.

    `options` has the annotation of each; `read` makes the argument of what was given for them.
    A parameter with `Annotated[..., OptionGroup(...)]` stands for the options at its place.
    """

    options: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], object]


class ApiCommands(typer.Typer):
    """A group of commands, in which a parameter `client` is the meter API that options name."""

    def command(self, *names: Any, **settings: Any) -> Callable[[F], F]:
        """Add a command. Its function is returned unchanged, so that others can call it."""
        register = super().command(*names, **settings)

        def add(function: F) -> F:
            register(with_client(function))
            return function

        return add


def with_client(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function with options in place of the parameter `client` and of option groups.

    `client` becomes --api and --home. Typer reads options from a signature, so each command would
    repeat them otherwise. Functions without `client` are returned as they are.
    """
    signature = inspect.signature(function)
    if "client" not in signature.parameters:
        return function
    groups: dict[str, OptionGroup] = {}
    own: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name == "client":
            continue
        notes = get_args(parameter.annotation)
        group = next((one for one in notes if isinstance(one, OptionGroup)), None)
        if group is None:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups[name] = group
            own += _parameters(group.options)

    @functools.wraps(function)
    def run(*, api: str | None, home: Path | None, **given: Any) -> None:
        read = {
            name: group.read({option: given.pop(option) for option in group.options})
            for name, group in groups.items()
        }
        function(client=connect(api, home), **given, **read)

    place = len(own) - ("as_json" in signature.parameters)
    parameters = own[:place] + _parameters(_OPTIONS) + own[place:]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _parameters(options: Mapping[str, Any]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in options.items()
    ]
