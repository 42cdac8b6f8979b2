"""The principals of credentials, in Postgres."""

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from meter.identity.keys.key_text import new_credential_id
from meter.identity.principal import (
    ByAccount,
    ByCertificate,
    ByIdentity,
    ByKey,
    ByPass,
    CredentialKind,
    OwnKeyMode,
    OwnKeyTerms,
    Presented,
    Principal,
)
from meter.identity.provisioning import ensure_identity
from meter.limits.rate_rows import rates_of
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.scopes import scopes_of

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_FIND_BY_SECRET: Final = _QUERIES["find_by_secret"]
_FIND_BY_PASS: Final = _QUERIES["find_by_pass"]
_FIND_BY_CERTIFICATE: Final = _QUERIES["find_by_certificate"]
_FIND_BY_CREDENTIAL: Final = _QUERIES["find_by_credential"]
_FIND_BY_ACCOUNT: Final = _QUERIES["find_by_account"]
_ENSURE_ACCOUNT_CREDENTIAL: Final = _QUERIES["ensure_account_credential"]


class PostgresPrincipals:
    """Implements `meter.identity.principal.Principals`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def find(self, presented: Presented) -> Principal | None:
        """Return the principal, or None when there is no live one. Raises StoreUnavailable."""
        match presented:
            case ByKey(digest):
                return await self._find(_FIND_BY_SECRET, digest)
            case ByPass(verified):
                return await self._find(_FIND_BY_PASS, verified.pass_id, verified.pass_id)
            case ByCertificate(name):
                return await self._find(_FIND_BY_CERTIFICATE, name)
            case ByIdentity(verified):
                async with acquire(self._pool) as connection:
                    credential_id = await ensure_identity(connection, verified)
                if credential_id is None:
                    return None
                return await self._find(_FIND_BY_CREDENTIAL, credential_id)
            case ByAccount(account_id):
                found = await self._find(_FIND_BY_ACCOUNT, account_id)
                if found is None:
                    # Most accounts are never named by a trusted route: the credential that acts
                    # for such an account is created at its first request.
                    async with acquire(self._pool) as connection:
                        await connection.execute(
                            _ENSURE_ACCOUNT_CREDENTIAL, account_id, new_credential_id()
                        )
                    found = await self._find(_FIND_BY_ACCOUNT, account_id)
                return found

    async def _find(
        self, query: str, value: bytes | str, pass_id: str | None = None
    ) -> Principal | None:
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query, value)
        return None if row is None else _to_principal(row, pass_id)


def _to_principal(row: "Record", pass_id: str | None) -> Principal:
    networks = row["allowed_addresses"]
    own_key_terms = OwnKeyTerms(
        OwnKeyMode(row["own_key_mode"]), row["may_fall_back_to_credit"], row["own_key_fee_bps"]
    )
    scopes = scopes_of(row["scopes"])
    lists = [row["allowed_models"]]
    has_budget = row["has_budget"]
    if pass_id is not None:
        has_budget |= row["has_pass_budget"]
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
        has_budget=has_budget,
        has_own_keys=row["has_own_keys"],
        own_key_terms=own_key_terms,
    )
