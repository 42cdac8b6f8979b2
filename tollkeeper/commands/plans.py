"""`tollkeeper plans`: terms that many users share."""

from typing import Annotated

import typer

from tollkeeper.api_client import connect, segment
from tollkeeper.tables import ApiOption, HomeOption, JsonOption, show_one, show_rows

COLUMNS = ("id", "name", "markup_bps", "requests_per_minute")

app = typer.Typer(name="plans", help="Plans: markup and limits.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_plans(api: ApiOption = None, home: HomeOption = None, as_json: JsonOption = None) -> None:
    """List plans."""
    rows = connect(api, home).get("/plans")["data"]
    show_rows(rows, COLUMNS, as_json, "There are no plans.")


@app.command("set")
def set_plan(
    plan: Annotated[str, typer.Argument(help="The plan's id.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="For people to read.")],
    markup_bps: Annotated[int, typer.Option("--markup-bps", help="Basis points.")],
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", help="By default no limit.")
    ] = None,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Make a plan, or change its terms as a whole."""
    terms = {
        "name": name,
        "markup_bps": markup_bps,
        "requests_per_minute": requests_per_minute,
    }
    show_one(connect(api, home).send("PUT", f"/plans/{segment(plan)}", terms), as_json)
