"""Credentials in Postgres: a keyed digest and a public prefix, never the secret."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from meter.accounts import Credential
from meter.credentials import MintedKey, Pepper
from meter.errors import NotFound
from meter.stores.accounts import user_not_found
from meter.stores.postgres import PostgresPool, acquire, query


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a new key is called and may do. None: every model, and no end."""

    name: str
    allowed_models: tuple[str, ...] | None
    expires_in_days: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credential was presented."""

    credential_id: str
    account_id: str


class CredentialStore:
    """Issues, lists, revokes and recognises credentials. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool, pepper: Pepper) -> None:
        self._pool = pool
        self._pepper = pepper

    async def issue(self, account_id: str, key: MintedKey, terms: KeyTerms) -> Credential:
        """Store a new key's digest; raises NotFound for an unknown account."""
        allowed = None if terms.allowed_models is None else list(terms.allowed_models)
        async with acquire(self._pool) as connection:
            try:
                row = await connection.fetchrow(
                    query("create_credential"),
                    key.credential_id,
                    account_id,
                    terms.name,
                    self._pepper.digest(key.plain.reveal()),
                    key.prefix,
                    allowed,
                    terms.expires_in_days,
                )
            except asyncpg.ForeignKeyViolationError:
                raise user_not_found(account_id) from None
        assert row is not None
        return _credential(row)

    async def list_page(
        self, account_id: str, after: tuple[datetime, str] | None, limit: int
    ) -> list[Credential]:
        """The account's credentials, newest first, revoked ones included."""
        created_at, credential_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                query("list_credentials"), account_id, created_at, credential_id, limit
            )
        return [_credential(row) for row in rows]

    async def revoke(self, account_id: str, credential_id: str) -> None:
        """End a credential; raises NotFound for one that is unknown or another account's."""
        async with acquire(self._pool) as connection:
            revoked = await connection.fetchval(
                query("revoke_credential"), account_id, credential_id
            )
        if revoked is None:
            raise NotFound(f"the user has no key '{credential_id}'")

    async def find_caller(self, plain: str) -> Caller | None:
        """Who presents this key; None when it is unknown, revoked or expired alike."""
        digest = self._pepper.digest(plain)
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query("find_live_credential"), digest)
        return None if row is None else Caller(row["id"], row["account_id"])


def _credential(row: asyncpg.Record) -> Credential:
    allowed = row["allowed_models"]
    return Credential(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        prefix=row["prefix"],
        allowed_models=None if allowed is None else tuple(allowed),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        created_at=row["created_at"],
    )
