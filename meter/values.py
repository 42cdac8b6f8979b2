"""Values that a request makes several of, which cost a tenth of a frozen dataclass."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def light_value(kind: type[T]) -> type[T]:
    """Make a class an immutable value, as `dataclass(frozen=True, slots=True)` does.

    The type checker refuses assignments to its fields, and Python does not: its own check makes
    each field of a new object take longer than the whole object does here. Give the values by
    position where it matters, because names cost as much again.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)
