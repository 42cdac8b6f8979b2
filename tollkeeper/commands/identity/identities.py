"""`tollkeeper identities`: subjects of issuers and certificates that act for a user."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.identity.key_options import (
    NO_LIMITS,
    AddressOption,
    Limits,
    ModelOption,
    key_members,
)
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import JsonOption, say, show_one, show_rows

COLUMNS = ("id", "kind", "issuer", "subject", "created_at", "suspended_at", "revoked_at")

app = ApiCommands(
    name="identities", help="Subjects and certificates of users.", no_args_is_help=True
)
IdentityArgument = Annotated[str, typer.Argument(help="The identity's id.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_identities(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """List a user's identities: subjects of issuers, and certificates."""
    rows = client.get(f"/users/{segment(user)}/identities")["data"]
    show_rows(rows, COLUMNS, as_json, "The user has no identities.")


@app.command("link")
def link_identity(
    client: MeterApi,
    user: UserArgument,
    issuer: Annotated[str | None, typer.Option("--issuer", help="Id of an issuer.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="The `sub` in the issuer's JWTs.")
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option("--certificate", help="Name in a client certificate, in place of a subject."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="Scope of a certificate; may be repeated."),
    ] = None,
    model: ModelOption = None,
    address: AddressOption = None,
    limits: Limits = NO_LIMITS,
    as_json: JsonOption = None,
) -> None:
    """Let a subject or a certificate act for a user, or replace its terms if it already does."""
    said = {"issuer": issuer, "subject": subject, "certificate": certificate}
    body: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    body |= key_members(model, address, None, limits, None, None)
    if scope:
        body["scopes"] = scope
    show_one(client.send("PUT", f"/users/{segment(user)}/identities", body), as_json)


@app.command("suspend")
def suspend_identity(client: MeterApi, user: UserArgument, identity_id: IdentityArgument) -> None:
    """Refuse all requests of an identity until it is resumed."""
    _tell(client, "POST", user, f"{segment(identity_id)}/suspend")
    say(f"The identity {identity_id} is suspended.")


@app.command("resume")
def resume_identity(client: MeterApi, user: UserArgument, identity_id: IdentityArgument) -> None:
    """Accept requests of a suspended identity again."""
    _tell(client, "POST", user, f"{segment(identity_id)}/resume")
    say(f"The identity {identity_id} is resumed.")


@app.command("revoke")
def revoke_identity(client: MeterApi, user: UserArgument, identity_id: IdentityArgument) -> None:
    """Revoke an identity; this cannot be undone, and its subject gets no new user."""
    _tell(client, "DELETE", user, segment(identity_id))
    say(f"The identity {identity_id} is revoked.")


def _tell(client: MeterApi, method: str, user: str, what: str) -> None:
    client.send(method, f"/users/{segment(user)}/identities/{what}")
