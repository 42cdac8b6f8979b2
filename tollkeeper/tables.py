"""Output of commands: tables at a terminal, JSON everywhere else."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

# The API writes times in UTC, with a Z. People see minutes; JSON has all digits.
_MOMENT: Final = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)T(?P<minute>\d\d:\d\d):[\d.]+Z")
COLUMN_GAP: Final = 2
_REORDERING: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})

ApiOption = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="TOLLKEEPER_API_URL",
        help="Address of the meter API; by default the one on this machine.",
        show_default=False,
    ),
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="State folder (TOLLKEEPER_HOME).", show_default=False)
]
JsonOption = Annotated[
    bool | None,
    typer.Option(
        "--json/--table", help="JSON or a table; by default a table at a terminal, else JSON."
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Rows at most.")]


def wants_json(asked: bool | None) -> bool:
    """Return whether to print JSON: as asked, else where standard output is no terminal."""
    return not sys.stdout.isatty() if asked is None else asked


def show_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], as_json: bool | None, empty: str
) -> None:
    """Print a list: these columns for people, every member as JSON."""
    listed, console = list(rows), Console()
    if wants_json(as_json):
        print_json(listed)
        return
    if not listed:
        console.print(Text(empty))
        return
    # A column in which no row has a value says nothing.
    shown = [name for name in columns if any(row.get(name) not in (None, [], {}) for row in listed)]
    cells = [[cell(row.get(name)) for name in shown] for row in listed]
    headers = [Text(name.replace("_", " "), style="bold") for name in shown]
    widths = [
        max(cell_len(word) for text in column for word in (text.plain.split() or [""]))
        for column in zip(headers, *cells, strict=True)
    ]
    if sum(widths) + COLUMN_GAP * (len(widths) - 1) > console.width:
        # Too narrow to keep words whole in columns: a block of lines for each row.
        for row in cells:
            _print_members(console, zip(headers, row, strict=True))
            console.print()
        return
    table = Table(box=None, pad_edge=False, padding=(0, COLUMN_GAP, 0, 0))
    for name, header, width in zip(shown, headers, widths, strict=True):
        is_number = all(_is_figure(row.get(name)) for row in listed)
        justify: JustifyMethod = "right" if is_number else "left"
        table.add_column(header, justify=justify, min_width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def show_one(members: Mapping[str, Any], as_json: bool | None) -> None:
    """Print one object: a line for each member for people, else JSON."""
    if wants_json(as_json):
        print_json(members)
        return
    headers = [Text(name.replace("_", " "), style="bold") for name in members]
    _print_members(Console(), zip(headers, map(cell, members.values()), strict=True))


def show_secret(made: Mapping[str, Any], name: str, as_json: bool | None) -> None:
    """Print an object with a secret; people get the secret first, whole, on a line of its own."""
    if wants_json(as_json):
        print_json(made)
        return
    # First and alone on its line, so that it is seen and copied whole.
    typer.echo(f"\n{printable(str(made[name]))}\n")
    show_one({member: value for member, value in made.items() if member != name}, as_json)


def show_verdict(found: Mapping[str, Any], lines: Mapping[str, Any], as_json: bool | None) -> None:
    """Print the findings of a check: these lines for people, all members as JSON.

    Raises typer.Exit(1) if the findings are not `ok`.
    """
    if wants_json(as_json):
        print_json(found)
    else:
        show_one(lines, as_json)
    if not found["ok"]:
        raise typer.Exit(1)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Print a sentence for people on stderr, since programs read stdout."""
    Console(stderr=True).print(Text(printable(text)))


def cell(value: object) -> Text:
    """Return a value as text for people, without markup and terminal commands."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        return Text(", ".join(printable(str(item)) for item in value) or "-")
    if isinstance(value, Mapping):
        return Text(", ".join(f"{name} {cell(one)}" for name, one in value.items()) or "-")
    text = printable(str(value))
    moment = _MOMENT.fullmatch(text)
    return Text(f"{moment['day']} {moment['minute']}Z" if moment else text)


def printable(text: str) -> str:
    """Replace characters that control a terminal or reorder text."""
    return "".join(
        "\ufffd"
        if (unicodedata.category(char) == "Cc" or unicodedata.bidirectional(char) in _REORDERING)
        else char
        for char in text
    )


def _print_members(console: Console, members: Iterable[tuple[Text, Text]]) -> None:
    """Print a line for each member; a value that is too long goes on unbroken."""
    rows = list(members)
    width = max((cell_len(name.plain) for name, _ in rows), default=0)
    for name, value in rows:
        name.pad_right(width + COLUMN_GAP - cell_len(name.plain))
        console.print(name + value, soft_wrap=True)


def _is_figure(value: object) -> bool:
    if isinstance(value, bool) or value is None:
        return value is None
    return str(value).lstrip("-").replace(".", "", 1).isdecimal()
