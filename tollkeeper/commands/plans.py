"""`tollkeeper plans`: terms that users share."""

from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, show_one, show_rows

COLUMNS = (
    "id",
    "name",
    "markup_bps",
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "key_limits",
    "max_keys",
)
LimitCount = Annotated[int | None, typer.Option(help="By default no limit.")]

app = ApiCommands(name="plans", help="Plans: markup and limits.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_plans(client: MeterApi, as_json: JsonOption = None) -> None:
    """List plans."""
    rows = client.get("/plans")["data"]
    show_rows(rows, COLUMNS, as_json, "There are no plans.")


@app.command("set")
def set_plan(
    client: MeterApi,
    plan: Annotated[str, typer.Argument(help="The plan's id.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name to show to people.")],
    markup_bps: Annotated[
        int, typer.Option("--markup-bps", help="Markup on the cost, in basis points: 500 is 5 %.")
    ],
    requests_per_minute: LimitCount = None,
    tokens_per_minute: LimitCount = None,
    concurrent_requests: LimitCount = None,
    key_requests_per_minute: LimitCount = None,
    key_tokens_per_minute: LimitCount = None,
    key_concurrent_requests: LimitCount = None,
    max_keys: Annotated[
        int, typer.Option("--max-keys", help="Most live keys that a user may create.")
    ] = 100,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--self-service-scope", help="Scope that users may give to keys; may be repeated."
        ),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Create or replace a plan; a limit that is left out does not apply."""
    terms = {
        "name": name,
        "markup_bps": markup_bps,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "key_limits": {
            "requests_per_minute": key_requests_per_minute,
            "tokens_per_minute": key_tokens_per_minute,
            "concurrent_requests": key_concurrent_requests,
        },
        "max_keys": max_keys,
        **({"self_service_scopes": scope} if scope else {}),
    }
    show_one(client.send("PUT", f"/plans/{segment(plan)}", terms), as_json)
