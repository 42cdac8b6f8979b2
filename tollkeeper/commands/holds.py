"""`tollkeeper holds`: money set aside now, and requests that a policy ended."""

import enum
from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, LimitOption, show_one, show_rows

LIVE_COLUMNS = (
    "id",
    "user_id",
    "model",
    "amount",
    "state",
    "unknown_reason",
    "generation_id",
    "created_at",
    "expires_at",
)
# The columns that fit beside an id; JSON has all members.
POLICY_COLUMNS = (
    "placed_at",
    "hold_id",
    "user_id",
    "verdict",
    "rule",
    "charged_by_policy",
    "charge",
)

app = ApiCommands(name="holds", help="Money set aside for requests.", no_args_is_help=True)


class LiveState(enum.StrEnum):
    """The states of a hold that has not ended."""

    OPEN = "open"
    UNKNOWN = "unknown"


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("summary")
def summarise(client: MeterApi, as_json: JsonOption = None) -> None:
    """Count live holds, and look-ups of the usage of holds in state unknown."""
    summary = client.get("/holds/summary")
    show_one({**summary, "lookups": client.get("/lookups")}, as_json)


@app.command("list")
def list_holds(
    client: MeterApi,
    state: Annotated[
        LiveState | None, typer.Option("--state", help="Only holds in this state.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = None,
) -> None:
    """List holds that have not ended, oldest first."""
    rows = client.rows("/holds", limit, state=state and state.value)
    show_rows(rows, LIVE_COLUMNS, as_json, "No hold is live.")


@app.command("policy")
def list_policy_decisions(
    client: MeterApi, limit: LimitOption = 50, as_json: JsonOption = None
) -> None:
    """List requests whose usage never arrived and that a policy charged or released."""
    rows = client.rows("/policy-decisions", limit)
    show_rows(rows, POLICY_COLUMNS, as_json, "No request was decided by policy.")
