"""`tollkeeper issuers`: whose JWTs are believed, and on which terms."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tollkeeper.api_client import connect, segment
from tollkeeper.commands.identity.issuer_presets import PRESETS, Asked
from tollkeeper.errors import CommandError
from tollkeeper.tables import ApiOption, HomeOption, JsonOption, say, show_one, show_rows

COLUMNS = ("id", "url", "is_enabled", "identities", "keys_age_s")

app = typer.Typer(name="issuers", help="Issuers of JWTs that are believed.", no_args_is_help=True)
IssuerArgument = Annotated[str, typer.Argument(help="The issuer's id.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("put")
def put_issuer(
    issuer_id: IssuerArgument,
    url: Annotated[
        str | None, typer.Option("--url", help="The `iss` of its JWTs, or the host of a preset.")
    ] = None,
    terms: Annotated[
        Path | None, typer.Option("--terms", help="File with the terms in JSON: docs/jwts.md.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help=f"Instead: {', '.join(sorted(PRESETS))}.")
    ] = None,
    audience: Annotated[
        str | None, typer.Option("--audience", help="Of a preset: what `aud` must hold.")
    ] = None,
    realm: Annotated[str | None, typer.Option("--realm", help="Of Keycloak.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Id of Entra's.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Hosted, of Google.")] = None,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Believe an issuer, or change its terms: by a file, or by a preset to begin with."""
    if (terms is None) == (preset is None):
        raise CommandError("Give --terms FILE or --preset NAME.")
    if preset is not None:
        asked = Asked(url, audience, realm, tenant, domain)
        if preset not in PRESETS:
            raise CommandError(
                f"There is no preset {preset}; there are {', '.join(sorted(PRESETS))}."
            )
        body = PRESETS[preset](asked)
    else:
        body = {"url": url, "terms": _read_terms(terms)}
    if not body["url"]:
        raise CommandError("Give --url, the `iss` of its JWTs.")
    show_one(connect(api, home).send("PUT", f"/issuers/{segment(issuer_id)}", body), as_json)


@app.command("list")
def list_issuers(
    api: ApiOption = None, home: HomeOption = None, as_json: JsonOption = None
) -> None:
    """List the issuers that are known."""
    rows = connect(api, home).get("/issuers")["data"]
    show_rows(rows, COLUMNS, as_json, "No issuer is believed.")


@app.command("show")
def show_issuer(
    issuer_id: IssuerArgument,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Show an issuer with its terms, and how old its keys are."""
    show_one(connect(api, home).get(f"/issuers/{segment(issuer_id)}"), as_json)


@app.command("check")
def check_issuer(
    issuer_id: IssuerArgument,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Fetch its discovery document and keys now; exit code 1 where something is wrong."""
    checked = connect(api, home).send("POST", f"/issuers/{segment(issuer_id)}/check")
    show_rows(checked["findings"], ("step", "is_good", "said"), as_json, "Nothing was looked at.")
    if not checked["is_good"]:
        raise typer.Exit(1)


@app.command("enable")
def enable_issuer(
    issuer_id: IssuerArgument, api: ApiOption = None, home: HomeOption = None
) -> None:
    """Believe its JWTs again."""
    connect(api, home).send("POST", f"/issuers/{segment(issuer_id)}/enable")
    say(f"The issuer {issuer_id} is enabled.")


@app.command("disable")
def disable_issuer(
    issuer_id: IssuerArgument, api: ApiOption = None, home: HomeOption = None
) -> None:
    """Believe none of its JWTs any more, within a second everywhere."""
    connect(api, home).send("POST", f"/issuers/{segment(issuer_id)}/disable")
    say(f"The issuer {issuer_id} is disabled.")


@app.command("remove")
def remove_issuer(
    issuer_id: IssuerArgument, api: ApiOption = None, home: HomeOption = None
) -> None:
    """Forget an issuer of which no subject is known; any other can only be disabled."""
    connect(api, home).send("DELETE", f"/issuers/{segment(issuer_id)}")
    say(f"The issuer {issuer_id} is removed.")


def _read_terms(file: Path | None) -> Any:
    assert file is not None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise CommandError(f"{file} is not JSON.") from None
