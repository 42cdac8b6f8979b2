"""`tollkeeper billing`: the mode of selling, and going live."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, show_one, show_verdict

GO_LIVE_TIMEOUT_S = 120.0

app = ApiCommands(
    name="billing", help="The mode of selling credit, and going live.", no_args_is_help=True
)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("show")
def show_mode(client: MeterApi, as_json: JsonOption = None) -> None:
    """Show whether credit is sold, in which mode, and under which terms."""
    show_one(client.get("/selling"), as_json)


@app.command("go-live")
def go_live(
    client: MeterApi,
    user: Annotated[
        str | None,
        typer.Option("--user", help="The user who makes the purchase of 1 USD, refunded at once."),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Run the checks before real money is taken; exit code 1 until all have passed.

    Repeat the command: it continues where it ended. With a test key it is a rehearsal.
    """
    body: dict[str, Any] = {} if user is None else {"user_id": user}
    found = client.send("POST", "/go-live", body, timeout_s=GO_LIVE_TIMEOUT_S)
    lines = {}
    for one in found["checks"]:
        lines[one["name"]] = f"{one['state']}: {one['why']}"
        if one["next_step"]:
            lines[f"{one['name']}, next"] = one["next_step"]
    if found["ok"]:
        lines["result"] = (
            "LIVE: credit is sold for real money"
            if found["is_live"]
            else "the rehearsal has passed; set the live key and TOLLKEEPER_STRIPE_LIVE=true"
        )
    show_verdict(found, lines, as_json)
