"""`tollkeeper routes`: which providers serve which models."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, connect, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, say, show_one, show_rows, wants_json

COLUMNS = ("id", "pattern", "position", "providers")

app = ApiCommands(name="routes", help="Routes: which providers serve which models.")
RouteArgument = Annotated[str, typer.Argument(help="The route's id.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Routes of models to providers. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_routes(connect(None, None))


@app.command("list")
def list_routes(client: MeterApi, as_json: JsonOption = None) -> None:
    """List routes, in the order in which their patterns are tried."""
    listed = client.get("/routes")["data"]
    if not wants_json(as_json):
        for one in listed:
            one["providers"] = ", ".join(map(_written, one["providers"]))
    show_rows(listed, COLUMNS, as_json, "There are no routes.")


@app.command("set")
def set_route(
    client: MeterApi,
    route: RouteArgument,
    pattern: Annotated[
        str, typer.Option("--model", help="Model id or pattern with *.", show_default=False)
    ],
    providers: Annotated[
        list[str],
        typer.Option(
            "--to",
            help="ID, ID:PRIORITY or ID:PRIORITY:WEIGHT of a provider; may be repeated. Without "
            "a priority, providers are asked in the order in which they are given.",
            show_default=False,
        ),
    ],
    position: Annotated[
        int, typer.Option("--position", help="Patterns are tried by it, the lowest first.")
    ] = 100,
    as_json: JsonOption = None,
) -> None:
    """Create or replace a route; its models go to these providers and to no other."""
    terms = {
        "pattern": pattern,
        "providers": [_read(text, place) for place, text in enumerate(providers)],
        "position": position,
    }
    made = client.send("PUT", f"/routes/{segment(route)}", terms)
    if not wants_json(as_json):
        made["providers"] = ", ".join(map(_written, made["providers"]))
    show_one(made, as_json)


@app.command("remove")
def remove_route(client: MeterApi, route: RouteArgument) -> None:
    """Remove a route; its models are served as without one."""
    client.send("DELETE", f"/routes/{segment(route)}")
    say(f"The route {route} is removed.")


def _read(text: str, place: int) -> dict[str, Any]:
    """Return the provider that an option names."""
    provider, *numbers = text.split(":")
    if len(numbers) > 2 or not all(one.isdecimal() and one.isascii() for one in numbers):
        raise typer.BadParameter(f"'{text}' is not ID, ID:PRIORITY or ID:PRIORITY:WEIGHT")
    priority, weight = (*map(int, numbers), *(place, 1)[len(numbers) :])
    return {"provider": provider, "priority": priority, "weight": weight}


def _written(one: dict[str, Any]) -> str:
    """Return a provider of a route as the option `--to` takes it."""
    return f"{one['provider']}:{one['priority']}:{one['weight']}"
