"""`tollkeeper models`: the catalogue with the prices in force."""

from decimal import Decimal
from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import with_client
from tollkeeper.tables import JsonOption, show_rows, wants_json

TOKENS = 1_000_000
COLUMNS = ("id", "context_length", "prompt_usd_per_million", "completion_usd_per_million")


def register(root: typer.Typer) -> None:
    """Add the command to the application."""
    root.command("models")(with_client(list_models))


def list_models(
    client: MeterApi,
    search: Annotated[
        str | None, typer.Argument(help="Part of an id or name.", show_default=False)
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """List models with their prices, before markup."""
    listed = client.get_public("/v1/models")["data"]
    wanted = (search or "").lower()
    found = [one for one in listed if wanted in f"{one['id']} {one['name']}".lower()]
    if not wants_json(as_json):
        for model in found:
            for name in ("prompt", "completion"):
                per_million = Decimal(model["pricing"][name]) * TOKENS
                model[f"{name}_usd_per_million"] = f"{per_million:f}"
    show_rows(found, COLUMNS, as_json, "The catalogue has no such model.")
