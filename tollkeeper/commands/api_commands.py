"""Commands that ask the meter API, and the options that say where it is."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer

from tollkeeper.api_client import connect
from tollkeeper.tables import ApiOption, HomeOption

F = TypeVar("F", bound=Callable[..., None])

# In this order in the help, before the option for the output.
_OPTIONS = {"api": ApiOption, "home": HomeOption}


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
    """Return a function with the options --api and --home in place of the parameter `client`.

    Typer reads options from a signature, so each command would repeat both otherwise. Functions
    without such a parameter are returned as they are.
    """
    signature = inspect.signature(function)
    if "client" not in signature.parameters:
        return function

    @functools.wraps(function)
    def run(*, api: str | None, home: Path | None, **given: Any) -> None:
        function(client=connect(api, home), **given)

    own = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in signature.parameters.items()
        if name != "client"
    ]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in _OPTIONS.items()
    ]
    place = len(own) - ("as_json" in signature.parameters)
    parameters = own[:place] + shared + own[place:]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
