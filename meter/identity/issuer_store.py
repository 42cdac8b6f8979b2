"""Trusted issuers of JWTs in Postgres, each with the last key set that was fetched from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, NotFound
from meter.jwts.issuers import Issuer, IssuerTerms, StoredIssuer
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_LOAD_ISSUERS: Final = _QUERIES["load_issuers"]
_SAVE_ISSUER_KEYS: Final = _QUERIES["save_issuer_keys"]
_LIST_ISSUERS: Final = _QUERIES["list_issuers"]
_GET_ISSUER: Final = _QUERIES["get_issuer"]
_LOCK_ISSUER: Final = _QUERIES["lock_issuer"]
_CHANGE_ISSUER: Final = _QUERIES["change_issuer"]
_DELETE_ISSUER: Final = _QUERIES["delete_issuer"]
_CREATE_ISSUER: Final = _QUERIES["create_issuer"]

MAX_ISSUERS: Final = 100


@dataclass(frozen=True, slots=True)
class NewIssuer:
    """A new issuer to trust, or new terms of one. `is_enabled` None keeps the present state."""

    id: str
    url: str
    terms: IssuerTerms
    is_enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class IssuerListing:
    """An issuer for administrators. `identities` is the number of its known subjects."""

    stored: StoredIssuer
    identities: int
    created_at: datetime
    updated_at: datetime


class PostgresIssuers:
    """Implements `meter.jwts.issuers.IssuerStore`, and lets administrators change issuers."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load_issuers(self) -> list[StoredIssuer]:
        """Return all issuers, disabled ones too. Raises StoreUnavailable."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_ISSUERS)
        return [_stored(row) for row in rows]

    async def save_keys(
        self, issuer_id: str, keys: Mapping[str, Any], fetched_at: datetime
    ) -> None:
        """Store a key set, unless a newer one is stored or the issuer was removed."""
        async with acquire(self._pool) as connection:
            await connection.execute(_SAVE_ISSUER_KEYS, issuer_id, json.dumps(keys), fetched_at)

    async def list_all(self) -> list[IssuerListing]:
        """Return all issuers for administrators; at most MAX_ISSUERS."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_ISSUERS)
        return [_listing(row) for row in rows]

    async def get(self, issuer_id: str) -> IssuerListing:
        """Return one issuer for administrators. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_GET_ISSUER, issuer_id)
        if row is None:
            raise _not_found(issuer_id)
        return _listing(row)

    async def put(self, new: NewIssuer, actor: Actor) -> None:
        """Trust an issuer, or change its terms.

        Raises Conflict where the id belongs to another URL, because its known subjects would then
        be trusted from elsewhere; where the URL belongs to another id; and beyond MAX_ISSUERS.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            before = await connection.fetchrow(_LOCK_ISSUER, new.id)
            was_enabled = True if before is None else before["is_enabled"]
            is_enabled = was_enabled if new.is_enabled is None else new.is_enabled
            issuer = Issuer(new.id, new.url, new.terms, is_enabled)
            if before is None:
                await _create(connection, issuer)
            elif before["url"] != issuer.url:
                raise Conflict(
                    "the URL of an issuer cannot change; add the other issuer under a new id"
                )
            else:
                terms = json.dumps(issuer.terms.to_json())
                await connection.execute(_CHANGE_ISSUER, issuer.id, terms, is_enabled)
            had = {} if before is None else _audit_detail(_issuer(before))
            await _audit(
                connection, actor, "put", issuer.id, changes_between(had, _audit_detail(issuer))
            )

    async def set_enabled(self, issuer_id: str, is_enabled: bool, actor: Actor) -> None:
        """Enable or disable an issuer; every process follows within a second. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            before = await connection.fetchrow(_LOCK_ISSUER, issuer_id)
            if before is None:
                raise _not_found(issuer_id)
            if before["is_enabled"] == is_enabled:
                return
            await connection.execute(_CHANGE_ISSUER, issuer_id, before["terms"], is_enabled)
            verb = "enabled" if is_enabled else "disabled"
            await _audit(connection, actor, verb, issuer_id, {})

    async def remove(self, issuer_id: str, actor: Actor) -> None:
        """Remove an issuer. Raises NotFound, and Conflict where it has identities."""
        async with acquire(self._pool) as connection:
            try:
                async with connection.transaction():
                    gone = await connection.execute(_DELETE_ISSUER, issuer_id)
                    if gone.endswith(" 0"):
                        raise _not_found(issuer_id)
                    await _audit(connection, actor, "removed", issuer_id, {})
            except asyncpg.ForeignKeyViolationError:
                raise Conflict(
                    "the issuer has identities, so it can only be disabled, not removed"
                ) from None


async def _create(connection: PostgresConnection, issuer: Issuer) -> None:
    if len(await connection.fetch(_LOAD_ISSUERS)) >= MAX_ISSUERS:
        raise Conflict(f"there are {MAX_ISSUERS} issuers, which is the most; remove one first")
    terms = json.dumps(issuer.terms.to_json())
    try:
        await connection.execute(_CREATE_ISSUER, issuer.id, issuer.url, terms, issuer.is_enabled)
    except asyncpg.UniqueViolationError:
        raise Conflict("this issuer exists already, perhaps under another id") from None


async def _audit(
    connection: PostgresConnection, actor: Actor, verb: str, issuer_id: str, detail: dict[str, Any]
) -> None:
    event = AuditEvent(f"issuer.{verb}", f"issuer:{issuer_id}", None, detail)
    await write_audit(connection, actor, event)


def _audit_detail(issuer: Issuer) -> dict[str, Any]:
    return {"url": issuer.url, "is_enabled": issuer.is_enabled, "terms": issuer.terms.to_json()}


def _not_found(issuer_id: str) -> NotFound:
    return NotFound(f"there is no issuer '{issuer_id}'")


def _issuer(row: "Record") -> Issuer:
    terms = IssuerTerms.from_json(json.loads(row["terms"]))
    return Issuer(row["id"], row["url"], terms, row["is_enabled"])


def _stored(row: "Record") -> StoredIssuer:
    keys = None if row["keys"] is None else json.loads(row["keys"])
    return StoredIssuer(_issuer(row), keys, row["keys_fetched_at"])


def _listing(row: "Record") -> IssuerListing:
    return IssuerListing(_stored(row), row["identities"], row["created_at"], row["updated_at"])
