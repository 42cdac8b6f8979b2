"""`tollkeeper catalogue`: models that are not offered, doubted findings, raised estimates."""

from typing import Annotated
from urllib.parse import urlencode

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, say, show_rows, wants_json

WITHHELD_COLUMNS = ("model", "reason", "since")
RAISED_COLUMNS = ("model", "endpoint", "factor", "is_refused", "excesses", "last_excess_at")
DOUBT_COLUMNS = ("id", "model", "explanation", "since", "accepted_at")

app = ApiCommands(
    name="catalogue",
    help="Models that are not offered, and doubts about listings.",
    no_args_is_help=True,
)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("withheld")
def list_withheld(client: MeterApi, as_json: JsonOption = None) -> None:
    """List the models that the provider lists and that are not offered, with the reasons."""
    listed = client.get("/catalogue/withheld")["data"]
    show_rows(listed, WITHHELD_COLUMNS, as_json, "Every model that is listed is offered.")


@app.command("doubts")
def list_doubts(client: MeterApi, as_json: JsonOption = None) -> None:
    """List findings in the provider's listing that are not applied yet."""
    listed = client.get("/catalogue/doubts")["data"]
    if not wants_json(as_json):
        for one in listed:
            one["model"] = one["model"] or "(the listing)"
    show_rows(listed, DOUBT_COLUMNS, as_json, "The last listing is applied as a whole.")


@app.command("accept")
def accept_doubt(
    client: MeterApi,
    doubt_id: Annotated[str, typer.Argument(help="Id of a doubt.", show_default=False)],
) -> None:
    """Accept a finding; it is applied with the next listing that contains it."""
    client.send("PUT", f"/catalogue/doubts/{segment(doubt_id)}/acceptance")
    say(f"The finding {doubt_id} is accepted.")


@app.command("raised")
def list_raised(client: MeterApi, as_json: JsonOption = None) -> None:
    """List models whose requests proved to cost more than their holds."""
    listed = client.get("/catalogue/raised-estimates")["data"]
    show_rows(listed, RAISED_COLUMNS, as_json, "No estimate is raised.")


@app.command("clear")
def clear_raised(
    client: MeterApi,
    model: Annotated[str, typer.Argument(help="Id of a model.", show_default=False)],
    endpoint: Annotated[str, typer.Argument(help="Name of an endpoint.")] = "chat_completions",
) -> None:
    """Trust the estimates of a model again; the next excess raises them anew."""
    query = urlencode({"model": model, "endpoint": endpoint})
    client.send("DELETE", f"/catalogue/raised-estimates?{query}")
    say(f"The estimates of {model} are trusted again.")
