"""`tollkeeper signing-keys`: list, rotate and remove the keys that sign passes."""

from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, say, show_one, show_rows

COLUMNS = ("kid", "algorithm", "created_at", "signs_from", "published_until", "is_signing")

app = ApiCommands(name="signing-keys", help="Keys that sign passes.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_signing_keys(client: MeterApi, as_json: JsonOption = None) -> None:
    """List the published keys, and show which of them signs."""
    rows = client.get("/signing-keys")["data"]
    show_rows(rows, COLUMNS, as_json, "There is no signing key yet.")


@app.command("rotate")
def rotate_signing_key(
    client: MeterApi,
    immediately: Annotated[
        bool, typer.Option("--immediately", help="Sign with the new key now, not in two minutes.")
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Create a signing key. Passes that older keys signed stay valid until they expire."""
    body = {"immediately": immediately}
    show_one(client.send("POST", "/signing-keys/rotate", body), as_json)


@app.command("remove")
def remove_signing_key(
    client: MeterApi, kid: Annotated[str, typer.Argument(help="The key's id.", show_default=False)]
) -> None:
    """Remove a signing key that may have leaked; all passes that it signed are refused."""
    client.send("DELETE", f"/signing-keys/{segment(kid)}")
    say(f"The signing key {kid} is removed.")
