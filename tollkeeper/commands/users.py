"""`tollkeeper users`: make, find, change, suspend and resume users."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.identity.key_options import (
    NO_LIMITS,
    Limits,
)
from tollkeeper.tables import JsonOption, LimitOption, say, show_one, show_rows

COLUMNS = (
    "id",
    "email",
    "name",
    "plan",
    "is_suspended",
    "is_blocked",
    "balance",
    "available",
    "overdrawn",
    "created_at",
)
PROVIDER_KEY_COLUMNS = (
    "provider",
    "updated_at",
    "mode",
    "may_fall_back_to_credit",
    "refused_at",
    "refused_status",
    "refused_reason",
)

app = ApiCommands(name="users", help="Users, who pay for requests.", no_args_is_help=True)
UserArgument = Annotated[str, typer.Argument(help="The user's id.", show_default=False)]
NameOption = Annotated[str | None, typer.Option("--name", help="Name to show to people.")]
PlanOption = Annotated[str | None, typer.Option("--plan", help="Id of the user's plan.")]
MarkupOption = Annotated[
    int | None, typer.Option("--markup-bps", help="Markup in basis points, in place of the plan's.")
]
MayManageKeysOption = Annotated[
    bool | None,
    typer.Option(
        "--may-manage-keys/--may-not-manage-keys",
        help="Whether the user may make and change API keys.",
    ),
]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_users(
    client: MeterApi,
    email: Annotated[
        str | None, typer.Option("--email", help="Only the user with this address.")
    ] = None,
    limit: LimitOption = 200,
    as_json: JsonOption = None,
) -> None:
    """List users, newest first."""
    rows = client.rows("/users", limit, email=email)
    show_rows(rows, COLUMNS, as_json, "There are no users.")


@app.command("create")
def create_user(
    client: MeterApi,
    email: Annotated[str, typer.Argument(help="The user's address.", show_default=False)],
    name: NameOption = None,
    user_id: Annotated[str | None, typer.Option("--id", help="By default a random id.")] = None,
    plan: PlanOption = None,
    markup_bps: MarkupOption = None,
    limits: Limits = NO_LIMITS,
    may_manage_keys: MayManageKeysOption = None,
    as_json: JsonOption = None,
) -> None:
    """Create a user without credit; limits that are left out are the plan's."""
    terms = {"plan": plan, "markup_bps": markup_bps, "may_manage_keys": may_manage_keys}
    body = {"email": email, **_given({"name": name, "id": user_id, **terms}), **limits}
    show_one(client.send("POST", "/users", body), as_json)


@app.command("show")
def show_user(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Show one user."""
    show_one(client.get(f"/users/{segment(user)}"), as_json)


@app.command("change")
def change_user(
    client: MeterApi,
    user: UserArgument,
    name: NameOption = None,
    plan: PlanOption = None,
    markup_bps: MarkupOption = None,
    has_plan_markup: Annotated[
        bool, typer.Option("--plan-markup", help="Use the markup of the plan again.")
    ] = False,
    limits: Limits = NO_LIMITS,
    may_manage_keys: MayManageKeysOption = None,
    as_json: JsonOption = None,
) -> None:
    """Change a user's name and terms; `none` for a limit means the plan's."""
    terms = {"plan": plan, "markup_bps": markup_bps, "may_manage_keys": may_manage_keys}
    body = {**_given({"name": name, **terms}), **limits}
    if has_plan_markup:
        body["markup_bps"] = None
    show_one(client.send("PATCH", f"/users/{segment(user)}", body), as_json)


@app.command("suspend")
def suspend_user(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Refuse all requests of a user until the user is resumed."""
    show_one(client.send("POST", f"/users/{segment(user)}/suspend"), as_json)


@app.command("resume")
def resume_user(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Accept requests of a suspended user again."""
    show_one(client.send("POST", f"/users/{segment(user)}/resume"), as_json)


@app.command("provider-keys")
def list_provider_keys(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """List which keys of providers a user has stored; nothing of the keys is shown."""
    listed = client.get(f"/users/{segment(user)}/provider-keys")
    for one in listed["data"]:
        one["mode"] = listed["mode"]
        one["may_fall_back_to_credit"] = listed["may_fall_back_to_credit"]
    show_rows(listed["data"], PROVIDER_KEY_COLUMNS, as_json, "The user has no provider keys.")


@app.command("delete-provider-key")
def delete_provider_key(
    client: MeterApi,
    user: UserArgument,
    provider: Annotated[str, typer.Argument(help="Id such as openai.", show_default=False)],
) -> None:
    """Delete a provider key that a user has stored."""
    client.send("DELETE", f"/users/{segment(user)}/provider-keys/{segment(provider)}")
    say(f"The key of {provider} is deleted.")


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
