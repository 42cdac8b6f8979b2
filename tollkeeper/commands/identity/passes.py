"""`tollkeeper passes`: issue, list and end JWTs that act for a user."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import (
    JsonOption,
    LimitOption,
    say,
    show_rows,
    show_secret,
    wants_json,
)

COLUMNS = (
    "jti",
    "credential_id",
    "scopes",
    "allowed_models",
    "budget",
    "spent",
    "expires_at",
    "revoked_at",
)

app = ApiCommands(
    name="passes", help="Passes: short-lived JWTs that act for users.", no_args_is_help=True
)
PassArgument = Annotated[str, typer.Argument(help="The pass's jti.", show_default=False)]
CredentialOption = Annotated[
    str | None, typer.Option("--credential", help="Only passes made with this key or identity.")
]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("issue")
def issue_pass(
    client: MeterApi,
    user: UserArgument,
    expires_in_s: Annotated[
        int, typer.Option("--expires-in-s", min=60, max=86_400, help="Seconds until it expires.")
    ] = 900,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Scope of the pass; may be repeated.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Model id or pattern with *; may be repeated."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="The most that the pass may spend, in US dollars."),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Issue a pass without a key of the user, and show it once."""
    body: dict[str, Any] = {"expires_in_s": expires_in_s}
    if scope:
        body["scopes"] = scope
    if model:
        body["allowed_models"] = model
    if budget is not None:
        body["budget"] = budget
    made = client.send("POST", f"/users/{segment(user)}/passes", body)
    show_secret(made, "access_token", as_json)
    if not wants_json(as_json):
        say("Keep the pass now: it is not stored and cannot be shown again.")


@app.command("list")
def list_passes(
    client: MeterApi,
    user: UserArgument,
    credential: CredentialOption = None,
    limit: LimitOption = 200,
    as_json: JsonOption = None,
) -> None:
    """List a user's passes; a pass that has ended stays in the list for a day."""
    wanted = {} if credential is None else {"credential": credential}
    rows = client.rows(f"/users/{segment(user)}/passes", limit, **wanted)
    show_rows(rows, COLUMNS, as_json, "The user has no passes.")


@app.command("revoke")
def revoke_pass(client: MeterApi, user: UserArgument, pass_id: PassArgument) -> None:
    """Revoke a pass at once; this cannot be undone."""
    client.send("DELETE", f"/users/{segment(user)}/passes/{segment(pass_id)}")
    say(f"The pass {pass_id} is revoked.")


@app.command("revoke-all")
def revoke_passes(
    client: MeterApi, user: UserArgument, credential: CredentialOption = None
) -> None:
    """Revoke all passes of a user, or all that were made with one credential."""
    of_one = "" if credential is None else f"?credential={segment(credential)}"
    ended = client.send("DELETE", f"/users/{segment(user)}/passes{of_one}")
    say(f"Passes revoked: {ended['revoked']}.")
