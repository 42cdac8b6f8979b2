"""The identities behind credentials, in Postgres."""

from ipaddress import ip_network
from typing import TYPE_CHECKING

from meter.accounts import CredentialKind, Principal
from meter.credentials import new_credential_id
from meter.jwts.verifying import VerifiedIdentity
from meter.scopes import scopes_of
from meter.stores.identities import ensure_identity
from meter.stores.plans import rates_of
from meter.stores.postgres import PostgresPool, acquire, query

if TYPE_CHECKING:
    from asyncpg import Record


class PostgresPrincipals:
    """Implements `meter.ports.Principals`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def find_by_secret(self, digest: bytes) -> Principal | None:
        """Behind an API key, by the keyed digest of its text."""
        return await self._find("find_by_secret", digest)

    async def find_by_pass(self, pass_id: str) -> Principal | None:
        """Behind a JWT of ours, by its `jti`."""
        return await self._find("find_by_pass", pass_id, pass_id)

    async def find_by_certificate(self, name: str) -> Principal | None:
        """Behind a client certificate, by its subject alternative name."""
        return await self._find("find_by_certificate", name)

    async def find_by_identity(self, identity: VerifiedIdentity) -> Principal | None:
        """Behind a JWT of another issuer; makes the account at first sight where it may."""
        async with acquire(self._pool) as connection:
            credential_id = await ensure_identity(connection, identity)
        return (
            None if credential_id is None else await self._find("find_by_credential", credential_id)
        )

    async def find_issued(self, account_id: str) -> Principal | None:
        """What acts for an account that gave no credential itself."""
        found = await self._find("find_issued", account_id)
        if found is None:
            async with acquire(self._pool) as connection:
                await connection.execute(query("ensure_issued"), account_id, new_credential_id())
            found = await self._find("find_issued", account_id)
        return found

    async def _find(
        self, name: str, value: bytes | str, pass_id: str | None = None
    ) -> Principal | None:
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query(name), value)
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
