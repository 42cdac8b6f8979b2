"""Scopes, which limit the calls of a principal. The list is closed, so typing errors are found."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """A group of calls that a credential may make.

    `inference`: calls that cost money. `models:read`: the list of models. `usage:read`: credit,
    usage, transactions and keys of the account. `keys:write`: create, change and revoke keys of
    the account. `billing:write`: buy credit, and keep the account's cards at Stripe. `admin:read`,
    `admin:write`: the administrators' routes.
    """

    INFERENCE = "inference"
    MODELS_READ = "models:read"
    USAGE_READ = "usage:read"
    KEYS_WRITE = "keys:write"
    BILLING_WRITE = "billing:write"
    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"


ADMIN_SCOPES: Final = frozenset({Scope.ADMIN_READ, Scope.ADMIN_WRITE})
DEFAULT_SCOPES: Final = frozenset({Scope.INFERENCE, Scope.MODELS_READ, Scope.USAGE_READ})


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes with these names. Raises ValueError for an unknown name."""
    return frozenset(Scope(name) for name in names)
