"""`tollkeeper providers`: the providers, and the keys that they are called with."""

from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, connect, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.identity.secret_input import read_secret
from tollkeeper.tables import JsonOption, say, show_rows, wants_json

COLUMNS = ("name", "base_url", "key_hint", "key_version", "key_updated_at", "key_refused")

app = ApiCommands(name="providers", help="Providers and their keys.")


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Providers and their keys. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_providers(connect(None, None))


@app.command("show", hidden=True)
@app.command("list")
def list_providers(client: MeterApi, as_json: JsonOption = None) -> None:
    """List the providers, and whether each has a key."""
    listed = client.get("/providers")["data"]
    if not wants_json(as_json):
        for one in listed:
            key = one["key"] or {}
            one["key_hint"] = key.get("hint", "not set")
            one["key_version"] = key.get("key_version")
            one["key_updated_at"] = key.get("updated_at")
            if key.get("refused_at") is not None:
                one["key_refused"] = f"{key['refused_status']}: {key['refused_reason']}"
    show_rows(listed, COLUMNS, as_json, "There are no providers.")


@app.command("set-key")
def set_key(
    client: MeterApi,
    provider: Annotated[str, typer.Argument(help="Id such as openrouter.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Store it without asking the provider.")
    ] = False,
) -> None:
    """Set a provider's key; it is read from standard input, or typed without being shown.

    The provider is asked first; a key that it refuses is not stored.
    """
    body = {"key": read_secret("Key"), "force": force}
    client.send("PUT", f"/providers/{segment(provider)}/key", body)
    say(f"The key of {provider} is set.")
