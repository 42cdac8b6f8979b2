"""CSV and JSON Lines: a file that was cut short is recognised by its missing last line. Pure."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from meter.exports.export import Column, Form

END: Final = "#end"
# Spreadsheets take a cell that begins like this for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


class FileFormat(StrEnum):
    """The formats of files."""

    CSV = "csv"
    JSON_LINES = "jsonl"

    def encoder(self, columns: Sequence[Column]) -> "FileEncoder":
        """Return an encoder for a file with these columns."""
        return (CsvEncoder if self is FileFormat.CSV else JsonLinesEncoder)(columns)


class FileEncoder(ABC):
    """Encodes one file in parts. The last line says how many rows there are."""

    media_type: str

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    @abstractmethod
    def begin(self) -> bytes:
        """Return the part before the first row."""

    @abstractmethod
    def rows(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Return some rows."""

    @abstractmethod
    def end(self, rows: int, next_cursor: str | None) -> bytes:
        """Return the last line: the number of rows, and the cursor of what is left."""


class CsvEncoder(FileEncoder):
    """Encodes CSV (RFC 4180) with a header. The last line begins with `#end`."""

    media_type = "text/csv; charset=utf-8; header=present"

    def begin(self) -> bytes:
        """Return the header."""
        return _csv([[column.name for column in self._columns]])

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Return some rows; an apostrophe stands before text that a spreadsheet would calculate."""
        return _csv([[_csv_cell(column, row) for column in self._columns] for row in rows])

    def end(self, rows: int, next_cursor: str | None) -> bytes:
        """Return `#end`, the number of rows and the cursor, with as many cells as the header."""
        cells = [END, str(rows), next_cursor or ""]
        return _csv([cells + [""] * (len(self._columns) - len(cells))])


class JsonLinesEncoder(FileEncoder):
    """Encodes a JSON object a line. The last one has the single member `end`."""

    media_type = "application/jsonl"

    def begin(self) -> bytes:
        """Return nothing: each row names its columns."""
        return b""

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Return some rows."""
        return b"".join(
            _json_line({column.name: column.value(row) for column in self._columns}) for row in rows
        )

    def end(self, rows: int, next_cursor: str | None) -> bytes:
        """Return the object with the number of rows and the cursor."""
        return _json_line({"end": {"rows": rows, "next_cursor": next_cursor}})


def _csv(lines: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()


def _csv_cell(column: Column, row: Mapping[str, Any]) -> object:
    value = column.value(row)
    if isinstance(value, bool):
        return "true" if value else "false"
    if column.form is Form.TEXT and isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _json_line(members: Mapping[str, object]) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
