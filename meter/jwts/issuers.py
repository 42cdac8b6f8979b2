"""Issuers of JWTs that are not ours, and what their claims mean here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from meter.jwts.terms import IssuerTerms

__all__ = ["Issuer", "IssuerStore", "IssuerTerms", "StoredIssuer"]


@dataclass(frozen=True, slots=True)
class Issuer:
    """Somebody whose JWTs are believed. `url` is compared with `iss` character by character."""

    id: str
    url: str
    terms: IssuerTerms
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class StoredIssuer:
    """An issuer with the last key set that was fetched from it, as `save_keys` was given it."""

    issuer: Issuer
    keys: Mapping[str, Any] | None
    keys_fetched_at: datetime | None


class IssuerStore(Protocol):
    """Where issuers are kept."""

    async def load_issuers(self) -> list[StoredIssuer]:
        """All of them, disabled ones too. Raises StoreUnavailable."""
        ...

    async def save_keys(
        self, issuer_id: str, keys: Mapping[str, Any], fetched_at: datetime
    ) -> None:
        """Keep a key set, unless a younger one is there or the issuer is gone.

        Raises StoreUnavailable.
        """
        ...
