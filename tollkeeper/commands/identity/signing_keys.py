"""`tollkeeper signing-keys`: what signs passes; list, rotate and remove it."""

from typing import Annotated

import typer

from tollkeeper.api_client import connect, segment
from tollkeeper.tables import ApiOption, HomeOption, JsonOption, say, show_one, show_rows

COLUMNS = ("kid", "algorithm", "created_at", "signs_from", "published_until", "is_signing")

app = typer.Typer(name="signing-keys", help="Keys that sign passes.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_signing_keys(
    api: ApiOption = None, home: HomeOption = None, as_json: JsonOption = None
) -> None:
    """List the keys that are published, and which of them signs."""
    rows = connect(api, home).get("/signing-keys")["data"]
    show_rows(rows, COLUMNS, as_json, "There is no signing key yet.")


@app.command("rotate")
def rotate_signing_key(
    immediately: Annotated[
        bool, typer.Option("--immediately", help="Sign with it now, not in two minutes.")
    ] = False,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Make a new key. Passes that others signed stay good until they expire."""
    body = {"immediately": immediately}
    show_one(connect(api, home).send("POST", "/signing-keys/rotate", body), as_json)


@app.command("remove")
def remove_signing_key(
    kid: Annotated[str, typer.Argument(help="The key's id.", show_default=False)],
    api: ApiOption = None,
    home: HomeOption = None,
) -> None:
    """Remove a key that somebody else may have: every pass that it signed is refused."""
    connect(api, home).send("DELETE", f"/signing-keys/{segment(kid)}")
    say(f"The signing key {kid} is removed.")
