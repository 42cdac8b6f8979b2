"""`tollkeeper keys`: make, list and revoke API keys."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import connect, segment
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import (
    ApiOption,
    HomeOption,
    JsonOption,
    LimitOption,
    say,
    show_one,
    show_rows,
    wants_json,
)

COLUMNS = ("id", "name", "allowed_models", "created_at", "expires_at", "revoked_at")

app = typer.Typer(name="keys", help="API keys of users.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("create")
def create_key(
    user: UserArgument,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "key",
    expires_in_days: Annotated[
        int | None, typer.Option("--expires-in-days", min=1, max=3650, help="By default never.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Id or pattern with *; say it again for more."),
    ] = None,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Make a key and show it, this once."""
    body: dict[str, Any] = {"name": name}
    if expires_in_days is not None:
        body["expires_in_days"] = expires_in_days
    if model:
        body["allowed_models"] = model
    made = connect(api, home).send("POST", f"/users/{segment(user)}/api-keys", body)
    show_one(made, as_json)
    if not wants_json(as_json):
        say("Keep the key now: it is stored as a digest and cannot be shown again.")


@app.command("list")
def list_keys(
    user: UserArgument,
    limit: LimitOption = 200,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """List a user's keys without their secrets."""
    rows = connect(api, home).rows(f"/users/{segment(user)}/api-keys", limit)
    show_rows(rows, COLUMNS, as_json, "The user has no keys.")


@app.command("revoke")
def revoke_key(
    user: UserArgument,
    key_id: Annotated[str, typer.Argument(help="The key's id.", show_default=False)],
    api: ApiOption = None,
    home: HomeOption = None,
) -> None:
    """End a key for good, at once."""
    connect(api, home).send("DELETE", f"/users/{segment(user)}/api-keys/{segment(key_id)}")
    say(f"The key {key_id} is revoked.")
