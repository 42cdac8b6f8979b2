"""`tollkeeper issuers`: the issuers whose JWTs are accepted, and their terms."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.identity.issuer_presets import PRESETS, Asked
from tollkeeper.errors import CommandError
from tollkeeper.tables import JsonOption, say, show_one, show_rows

COLUMNS = ("id", "url", "is_enabled", "identities", "keys_age_s")

app = ApiCommands(name="issuers", help="Issuers of JWTs that are accepted.", no_args_is_help=True)
IssuerArgument = Annotated[str, typer.Argument(help="The issuer's id.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("put")
def put_issuer(
    client: MeterApi,
    issuer_id: IssuerArgument,
    url: Annotated[
        str | None, typer.Option("--url", help="The `iss` of the JWTs, or the host for a preset.")
    ] = None,
    terms: Annotated[
        Path | None, typer.Option("--terms", help="JSON file with the terms (docs/jwts.md).")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help=f"Terms to start with: {', '.join(sorted(PRESETS))}."),
    ] = None,
    audience: Annotated[
        str | None, typer.Option("--audience", help="For a preset: the `aud` that JWTs must have.")
    ] = None,
    realm: Annotated[str | None, typer.Option("--realm", help="For keycloak: the realm.")] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="For entra: the id of the tenant.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="For google: the hosted domain.")
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Accept the JWTs of an issuer, or replace its terms, from a file or a preset."""
    if (terms is None) == (preset is None):
        raise CommandError("Give either --terms FILE or --preset NAME.")
    body: dict[str, Any] = {}
    if preset is not None:
        asked = Asked(url, audience, realm, tenant, domain)
        if preset not in PRESETS:
            raise CommandError(
                f"There is no preset {preset}; there are {', '.join(sorted(PRESETS))}."
            )
        body = PRESETS[preset](asked)
    elif terms is not None:
        try:
            body = {"url": url, "terms": json.loads(terms.read_text(encoding="utf-8"))}
        except OSError as error:
            raise CommandError(f"{terms} cannot be read: {error.strerror}.") from None
        except ValueError:
            raise CommandError(f"{terms} is not JSON.") from None
    if not body["url"]:
        raise CommandError("Give --url, the `iss` of the issuer's JWTs.")
    show_one(client.send("PUT", f"/issuers/{segment(issuer_id)}", body), as_json)


@app.command("list")
def list_issuers(client: MeterApi, as_json: JsonOption = None) -> None:
    """List issuers, enabled or not."""
    rows = client.get("/issuers")["data"]
    show_rows(rows, COLUMNS, as_json, "There are no issuers.")


@app.command("show")
def show_issuer(client: MeterApi, issuer_id: IssuerArgument, as_json: JsonOption = None) -> None:
    """Show an issuer with its terms and the age of its keys."""
    show_one(client.get(f"/issuers/{segment(issuer_id)}"), as_json)


@app.command("check")
def check_issuer(client: MeterApi, issuer_id: IssuerArgument, as_json: JsonOption = None) -> None:
    """Fetch the issuer's discovery document and keys; exit code 1 if a step fails."""
    checked = client.send("POST", f"/issuers/{segment(issuer_id)}/check")
    show_rows(checked["findings"], ("step", "is_good", "said"), as_json, "There are no findings.")
    if not checked["is_good"]:
        raise typer.Exit(1)


@app.command("enable")
def enable_issuer(client: MeterApi, issuer_id: IssuerArgument) -> None:
    """Accept the issuer's JWTs again."""
    client.send("POST", f"/issuers/{segment(issuer_id)}/enable")
    say(f"The issuer {issuer_id} is enabled.")


@app.command("disable")
def disable_issuer(client: MeterApi, issuer_id: IssuerArgument) -> None:
    """Refuse all JWTs of the issuer, everywhere within a second."""
    client.send("POST", f"/issuers/{segment(issuer_id)}/disable")
    say(f"The issuer {issuer_id} is disabled.")


@app.command("remove")
def remove_issuer(client: MeterApi, issuer_id: IssuerArgument) -> None:
    """Remove an issuer that has no identities; one that has can only be disabled."""
    client.send("DELETE", f"/issuers/{segment(issuer_id)}")
    say(f"The issuer {issuer_id} is removed.")
