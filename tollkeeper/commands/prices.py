"""`tollkeeper prices`: price lists for providers that name no prices themselves."""

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.errors import CommandError
from tollkeeper.tables import JsonOption, show_one, show_rows

COLUMNS = (
    *("model", "prompt_usd_per_million", "completion_usd_per_million"),
    *("cache_read_usd_per_million", "request_usd", "origin", "effective_from"),
)
# A list of 10,000 prices is one statement.
IMPORT_TIMEOUT_S = 60.0

app = ApiCommands(name="prices", help="Price lists for providers.", no_args_is_help=True)
ProviderOption = Annotated[
    str, typer.Option("--provider", help="The provider's name.", show_default=False)
]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_prices(client: MeterApi, provider: ProviderOption, as_json: JsonOption = None) -> None:
    """List the prices of a provider that are in force, and who says so."""
    listed = client.get(f"/providers/{segment(provider)}/prices")["data"]
    show_rows(listed, COLUMNS, as_json, f"{provider} has no prices.")


@app.command("import")
def import_prices(
    client: MeterApi,
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with a header, or JSON: model, prompt_usd_per_million,"
            " completion_usd_per_million and, if need be, cache_read_usd_per_million,"
            " cache_write_usd_per_million, reasoning_usd_per_million, request_usd, effective_from.",
            show_default=False,
        ),
    ],
    provider: ProviderOption,
    allow_zero: Annotated[
        bool, typer.Option("--allow-zero", help="Allow prices of nothing.")
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Import a price list of a provider, all of it or nothing.

    It precedes every other source of prices. The same list may be imported again.
    """
    body = {"prices": _read(file), "allow_zero": allow_zero}
    path = f"/providers/{segment(provider)}/prices"
    show_one(client.send("POST", path, body, timeout_s=IMPORT_TIMEOUT_S), as_json)


def _read(file: Path) -> list[dict[str, Any]]:
    """Return the prices of a file. Raises CommandError for a file that is neither CSV nor JSON."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        raise CommandError(f"The file {file} cannot be read.") from None
    if text.lstrip()[:1] in ("[", "{"):
        return _read_json(file, text)
    reader = csv.DictReader(text.splitlines())
    if reader.fieldnames is None or "model" not in reader.fieldnames:
        raise CommandError(
            f"The first line of {file} must name the columns: model,prompt_usd_per_million,"
            "completion_usd_per_million"
        )
    prices = []
    for number, row in enumerate(reader, 2):
        if None in row or None in row.values():
            raise CommandError(f"Line {number} of {file} has not as many values as columns.")
        prices.append({name: value.strip() for name, value in row.items() if value.strip()})
    return prices


def _read_json(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"The file {file} is not valid JSON: {error}.") from None
    prices = found.get("prices") if isinstance(found, dict) else found
    if not isinstance(prices, list) or not all(isinstance(one, dict) for one in prices):
        raise CommandError(f"The file {file} must have a list of prices.")
    return prices
