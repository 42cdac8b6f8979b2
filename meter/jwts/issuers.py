"""Trusted issuers of JWTs, other than Tollkeeper itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from meter.jwts.terms import IssuerTerms

__all__ = ["Issuer", "IssuerStore", "IssuerTerms", "StoredIssuer"]


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of JWTs. `url` is compared with `iss` character by character."""

    id: str
    url: str
    terms: IssuerTerms
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class StoredIssuer:
    """An issuer with its last key set, in the form that `save_keys` got."""

    issuer: Issuer
    keys: Mapping[str, Any] | None
    keys_fetched_at: datetime | None


class IssuerStore(Protocol):
    """The store of issuers; `meter.identity`, a higher layer, implements it."""

    async def load_issuers(self) -> list[StoredIssuer]:
        """Return all issuers, disabled ones too. Raises StoreUnavailable."""
        ...

    async def save_keys(
        self, issuer_id: str, keys: Mapping[str, Any], fetched_at: datetime
    ) -> None:
        """Store a key set, unless a newer one is stored or the issuer was removed.

        Raises StoreUnavailable.
        """
        ...
