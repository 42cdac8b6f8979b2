"""`tollkeeper keys`: make, change, rotate and end API keys."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.identity.key_options import (
    NO_LIMITS,
    AddressOption,
    BudgetOption,
    ExpiresAtOption,
    ExpiresInOption,
    KeyArgument,
    Limits,
    ModelOption,
    OwnKeysOption,
    ScopeOption,
    TagOption,
    end_members,
    key_members,
)
from tollkeeper.commands.identity.secret_input import read_secret
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import (
    JsonOption,
    LimitOption,
    say,
    show_one,
    show_rows,
    show_secret,
    wants_json,
)

COLUMNS = (
    "id",
    "name",
    "status",
    "scopes",
    "allowed_models",
    "tags",
    "created_at",
    "expires_at",
    "last_used_at",
)

app = ApiCommands(name="keys", help="API keys of users.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("create")
def create_key(
    client: MeterApi,
    user: UserArgument,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "key",
    scope: ScopeOption = None,
    expires_in_days: ExpiresInOption = None,
    expires_at: ExpiresAtOption = None,
    model: ModelOption = None,
    address: AddressOption = None,
    budget: BudgetOption = None,
    limits: Limits = NO_LIMITS,
    tag: TagOption = None,
    own_keys: OwnKeysOption = None,
    as_json: JsonOption = None,
) -> None:
    """Create a key and show its secret once."""
    body = {
        "name": name,
        **end_members(expires_in_days, expires_at),
        **key_members(model, address, budget, limits, tag, own_keys),
        **({"scopes": scope} if scope else {}),
    }
    _show_secret(client.send("POST", _path(user), body), as_json)


@app.command("list")
def list_keys(
    client: MeterApi,
    user: UserArgument,
    status: Annotated[
        str | None,
        typer.Option("--status", help="Only keys that are active, suspended, expired or revoked."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", help="Only keys with this tag: name, or name=value.")
    ] = None,
    limit: LimitOption = 200,
    as_json: JsonOption = None,
) -> None:
    """List a user's keys without their secrets."""
    rows = client.rows(_path(user), limit, status=status, tag=tag)
    show_rows(rows, COLUMNS, as_json, "There are no such keys.")


@app.command("show")
def show_key(
    client: MeterApi, user: UserArgument, key_id: KeyArgument, as_json: JsonOption = None
) -> None:
    """Show one key and what is left of its budgets."""
    key = client.get(_path(user, key_id))
    if not wants_json(as_json):
        key["spending"] = [
            f"{one['period']}: {one['left']} left of {one['limit']}" for one in key["spending"]
        ]
    show_one(key, as_json)


@app.command("change")
def change_key(
    client: MeterApi,
    user: UserArgument,
    key_id: KeyArgument,
    name: Annotated[str | None, typer.Option("--name", help="What the key is for.")] = None,
    scope: ScopeOption = None,
    expires_in_days: ExpiresInOption = None,
    expires_at: ExpiresAtOption = None,
    model: ModelOption = None,
    address: AddressOption = None,
    budget: BudgetOption = None,
    limits: Limits = NO_LIMITS,
    tag: TagOption = None,
    own_keys: OwnKeysOption = None,
    as_json: JsonOption = None,
) -> None:
    """Change the terms that are given; `none` removes a restriction."""
    body = {
        **({} if name is None else {"name": name}),
        **end_members(expires_in_days, expires_at),
        **key_members(model, address, budget, limits, tag, own_keys),
        **({"scopes": scope} if scope else {}),
    }
    changed = client.send("PATCH", _path(user, key_id), body)
    show_one(_without_warnings(changed, as_json), as_json)


@app.command("suspend")
def suspend_key(client: MeterApi, user: UserArgument, key_id: KeyArgument) -> None:
    """Refuse all requests with a key until the key is resumed."""
    client.send("POST", _path(user, key_id) + "/suspend")
    say(f"The key {key_id} is suspended.")


@app.command("resume")
def resume_key(client: MeterApi, user: UserArgument, key_id: KeyArgument) -> None:
    """Accept requests with a suspended key again."""
    client.send("POST", _path(user, key_id) + "/resume")
    say(f"The key {key_id} works again.")


@app.command("rotate")
def rotate_key(
    client: MeterApi,
    user: UserArgument,
    key_id: KeyArgument,
    overlap_s: Annotated[
        int,
        typer.Option(
            "--overlap-s",
            min=0,
            max=2_592_000,
            help="Seconds until the old secret ends.",
        ),
    ] = 86_400,
    as_json: JsonOption = None,
) -> None:
    """Give a key a new secret and show it once. The id stays the same."""
    path = _path(user, key_id) + "/rotate"
    _show_secret(client.send("POST", path, {"overlap_s": overlap_s}), as_json)


@app.command("end-previous")
def end_previous_secret(client: MeterApi, user: UserArgument, key_id: KeyArgument) -> None:
    """End the secret from before the last rotation at once."""
    client.send("DELETE", _path(user, key_id) + "/previous-secret")
    say(f"Only the newest secret of the key {key_id} works.")


@app.command("revoke")
def revoke_key(client: MeterApi, user: UserArgument, key_id: KeyArgument) -> None:
    """Revoke a key at once; this cannot be undone."""
    client.send("DELETE", _path(user, key_id))
    say(f"The key {key_id} is revoked.")


@app.command("report-leak")
def report_leak(client: MeterApi) -> None:
    """Revoke a key that became public; the key is read from standard input."""
    client.post_public("/api/v1/key-reports", {"key": read_secret("Key")})
    say("If there is such a key, it is revoked. Look at `tollkeeper audit`.")


def _path(user: str, key_id: str | None = None) -> str:
    keys = f"/users/{segment(user)}/api-keys"
    return keys if key_id is None else f"{keys}/{segment(key_id)}"


def _show_secret(made: dict[str, Any], as_json: bool | None) -> None:
    show_secret(_without_warnings(made, as_json), "key", as_json)
    if not wants_json(as_json):
        say("Keep the key now: it is stored as a digest and cannot be shown again.")


def _without_warnings(changed: dict[str, Any], as_json: bool | None) -> dict[str, Any]:
    """Print each warning for people and remove it; leave the reply unchanged for programs."""
    if wants_json(as_json):
        return changed
    for warning in changed["warnings"]:
        say(f"Note: {warning}.")
    return {name: value for name, value in changed.items() if name != "warnings"}
