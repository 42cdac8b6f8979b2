"""Reads rows into dataclasses whose fields are named like the columns."""

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncpg import Record

T = TypeVar("T")


def from_row(kind: type[T], row: "Record", /, **converted: object) -> T:
    """Return a dataclass made of the columns of a row; `converted` stands for other fields.

    Columns that name no field are ignored. Raises KeyError where a field has no column.
    """
    names = (field.name for field in fields(kind))  # type: ignore[arg-type]
    return kind(**{name: row[name] for name in names if name not in converted}, **converted)
