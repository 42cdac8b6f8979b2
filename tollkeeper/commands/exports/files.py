"""`tollkeeper export`: files of the books."""

import contextlib
import enum
import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import with_client
from tollkeeper.errors import CommandError
from tollkeeper.tables import say

END: Final = "#end"


class Kind(enum.StrEnum):
    """The parts of the books that files have."""

    USAGE = "usage"
    TRANSACTIONS = "transactions"
    PAYMENTS = "payments"
    INVOICES = "invoices"


class Format(enum.StrEnum):
    """The formats of files."""

    CSV = "csv"
    JSON_LINES = "jsonl"


def register(root: typer.Typer) -> None:
    """Add the command to the application."""
    root.command("export")(with_client(export))


def export(
    client: MeterApi,
    kind: Annotated[Kind, typer.Argument(show_default=False)],
    user: Annotated[
        str | None, typer.Option("--user", help="Only of this user; by default all.")
    ] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", help="First day (UTC), as 2026-01-31; by default 30 days ago."),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last day, included; by default today.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="CSV or JSON Lines.")] = Format.CSV,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; by default standard output.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Go on where a file of these days ended.")
    ] = None,
) -> None:
    """Write usage, transactions, payments or invoices; fails if the file is not complete."""
    lines = client.lines(
        f"/exports/{kind.value}",
        user_id=user,
        format=form.value,
        cursor=cursor,
        **{"from": first, "to": last},
    )
    line = b""
    with contextlib.ExitStack() as stack:
        file = sys.stdout.buffer if output is None else stack.enter_context(output.open("wb"))
        for line in lines:
            file.write(line)
        file.flush()
    rows, next_cursor = _read_end(form, line)
    if next_cursor is not None:
        say(f"{rows} rows; more are left: go on with --cursor {next_cursor}")


def _read_end(form: Format, line: bytes) -> tuple[int, str | None]:
    """Return the number of rows and the cursor of a file's last line. Raises CommandError."""
    text = line.decode()
    try:
        if form is Format.JSON_LINES:
            end = json.loads(text)["end"]
            return int(end["rows"]), end["next_cursor"]
        mark, rows, next_cursor, *_ = text.rstrip("\r\n").split(",")
        if mark == END:
            return int(rows), next_cursor or None
    except (ValueError, KeyError, TypeError):
        pass
    raise CommandError("The file is not complete: its last line is missing; export it again.")
