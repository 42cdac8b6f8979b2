"""The identities behind credentials, in Postgres."""

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from meter.accounts.plan_store import rates_of
from meter.identity.first_sight import ensure_identity
from meter.identity.keys.key_text import new_credential_id
from meter.identity.principal import CredentialKind, Principal
from meter.jwts.verifying import VerifiedIdentity
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.scopes import scopes_of

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_FIND_BY_SECRET: Final = _QUERIES["find_by_secret"]
_FIND_BY_PASS: Final = _QUERIES["find_by_pass"]
_FIND_BY_CERTIFICATE: Final = _QUERIES["find_by_certificate"]
_FIND_BY_CREDENTIAL: Final = _QUERIES["find_by_credential"]
_FIND_ISSUED: Final = _QUERIES["find_issued"]
_ENSURE_ISSUED: Final = _QUERIES["ensure_issued"]


class PostgresPrincipals:
    """Implements `meter.identity.principal.Principals`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def find_by_secret(self, digest: bytes) -> Principal | None:
        """Behind an API key, by the keyed digest of its text."""
        return await self._find(_FIND_BY_SECRET, digest)

    async def find_by_pass(self, pass_id: str) -> Principal | None:
        """Behind a JWT of ours, by its `jti`."""
        return await self._find(_FIND_BY_PASS, pass_id, pass_id)

    async def find_by_certificate(self, name: str) -> Principal | None:
        """Behind a client certificate, by its subject alternative name."""
        return await self._find(_FIND_BY_CERTIFICATE, name)

    async def find_by_identity(self, identity: VerifiedIdentity) -> Principal | None:
        """Behind a JWT of another issuer; makes the account at first sight where it may."""
        async with acquire(self._pool) as connection:
            credential_id = await ensure_identity(connection, identity)
        return (
            None if credential_id is None else await self._find(_FIND_BY_CREDENTIAL, credential_id)
        )

    async def find_issued(self, account_id: str) -> Principal | None:
        """What acts for an account that gave no credential itself."""
        found = await self._find(_FIND_ISSUED, account_id)
        if found is None:
            async with acquire(self._pool) as connection:
                await connection.execute(_ENSURE_ISSUED, account_id, new_credential_id())
            found = await self._find(_FIND_ISSUED, account_id)
        return found

    async def _find(
        self, query: str, value: bytes | str, pass_id: str | None = None
    ) -> Principal | None:
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query, value)
        return None if row is None else _to_principal(row, pass_id)


def _to_principal(row: "Record", pass_id: str | None) -> Principal:
    networks = row["allowed_addresses"]
    scopes = scopes_of(row["scopes"])
    lists = [row["allowed_models"]]
    if pass_id is not None:
        scopes &= scopes_of(row["pass_scopes"])
        lists.append(row["pass_models"])
    return Principal(
        credential_id=row["credential_id"],
        account_id=row["account_id"],
        markup_bps=row["markup_bps"],
        is_suspended=row["is_suspended"],
        plan_id=row["plan_id"],
        kind=CredentialKind(row["kind"]),
        scopes=scopes,
        model_lists=tuple(frozenset(allowed) for allowed in lists if allowed is not None),
        networks=None if networks is None else tuple(ip_network(text) for text in networks),
        ends_at=row["ends_at"],
        key_rates=rates_of(row, "key_"),
        account_rates=rates_of(row, "account_"),
        pass_id=pass_id,
    )
