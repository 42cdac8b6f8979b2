"""Scopes: what a principal may call. A closed list, so that a typing error cannot widen a key."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What may be called with a credential.

    `inference`: whatever costs money. `models:read`: the list of models. `usage:read`: what is the
    account's own: credit, usage, transactions, the list of its keys. `keys:write`: make, change
    and end the account's keys. `admin:read`, `admin:write`: the administrators' routes.
    """

    INFERENCE = "inference"
    MODELS_READ = "models:read"
    USAGE_READ = "usage:read"
    KEYS_WRITE = "keys:write"
    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"


ADMIN_SCOPES: Final = frozenset({Scope.ADMIN_READ, Scope.ADMIN_WRITE})
DEFAULT_SCOPES: Final = frozenset({Scope.INFERENCE, Scope.MODELS_READ, Scope.USAGE_READ})


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of these names. Raises ValueError for a name that is none."""
    return frozenset(Scope(name) for name in names)
