"""Identities and certificates of accounts in Postgres: administrators link and revoke them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg

from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, NotFound, UnknownReference
from meter.identity.keys.key_text import new_credential_id
from meter.identity.principal import CredentialKind
from meter.identity.provisioning import shown_subject, stored_subject
from meter.limits.limits import Rates
from meter.limits.rate_rows import rate_columns, rates_of
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.scopes import DEFAULT_SCOPES, Scope, scopes_of

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_LIST_IDENTITIES: Final = _QUERIES["list_identities"]
_SUSPEND_IDENTITY: Final = _QUERIES["suspend_identity"]
_REVOKE_IDENTITY: Final = _QUERIES["revoke_identity"]
_LOCK_ACCOUNT: Final = _QUERIES["lock_account"]
_LINK_IDENTITY: Final = _QUERIES["link_identity"]
_CHANGE_IDENTITY: Final = _QUERIES["change_identity"]
_FIND_SUBJECT: Final = _QUERIES["find_subject"]
_COUNT_OTHER_ISSUERS: Final = _QUERIES["count_other_issuers"]

MAX_IDENTITIES: Final = 1_000


@dataclass(frozen=True, slots=True)
class IdentityLink:
    """A subject that shall act for an account, and its terms.

    `subject` belongs to `issuer_id`; where that is None, it is the subject alternative name of a
    certificate. `scopes` apply to certificates only; a JWT brings its own.
    """

    issuer_id: str | None
    subject: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    allowed_models: tuple[str, ...] | None = None
    allowed_addresses: tuple[str, ...] | None = None
    rates: Rates = field(default_factory=Rates)


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity or certificate that acts for an account.

    `account_subject` is the subject that the account was opened for; None where it is the same.
    """

    id: str
    kind: CredentialKind
    issuer_id: str | None
    subject: str | None
    account_subject: str | None
    name: str
    scopes: frozenset[Scope]
    allowed_models: tuple[str, ...] | None
    allowed_addresses: tuple[str, ...] | None
    rates: Rates
    created_at: datetime
    created_by: str
    suspended_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class IdentityStore:
    """Links, lists, suspends and revokes identities. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self, account_id: str) -> list[Identity]:
        """Return the identities and certificates of an account; at most MAX_IDENTITIES."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_IDENTITIES, account_id, None, MAX_IDENTITIES)
        return [_identity(row) for row in rows]

    async def get(self, account_id: str, identity_id: str) -> Identity:
        """Return one identity. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_LIST_IDENTITIES, account_id, identity_id, 1)
        if row is None:
            raise _not_found()
        return _identity(row)

    async def link(self, account_id: str, link: IdentityLink, actor: Actor) -> Identity:
        """Let a subject act for an account, or change its terms.

        Raises NotFound for an unknown account and UnknownReference for an unknown issuer. Raises
        Conflict where the subject acts or acted for another account, or was revoked, or where the
        account has identities of another issuer.
        """
        async with acquire(self._pool) as connection:
            try:
                async with connection.transaction():
                    identity_id = await _link(connection, account_id, link, actor)
            except asyncpg.UniqueViolationError:
                raise Conflict(
                    "the subject was stored by another request at the same moment; try again"
                ) from None
            except asyncpg.ForeignKeyViolationError:
                raise UnknownReference(f"there is no issuer '{link.issuer_id}'") from None
        return await self.get(account_id, identity_id)

    async def set_suspended(
        self, account_id: str, identity_id: str, is_suspended: bool, actor: Actor
    ) -> Identity:
        """Suspend or resume an identity. Raises NotFound, also for a revoked one."""
        verb = "suspended" if is_suspended else "resumed"
        await self._change(_SUSPEND_IDENTITY, verb, actor, account_id, identity_id, is_suspended)
        return await self.get(account_id, identity_id)

    async def revoke(self, account_id: str, identity_id: str, actor: Actor) -> None:
        """Revoke an identity for ever; its subject gets no other account. Raises NotFound."""
        await self._change(_REVOKE_IDENTITY, "revoked", actor, account_id, identity_id)

    async def _change(
        self, query: str, verb: str, actor: Actor, account_id: str, identity_id: str, *more: bool
    ) -> None:
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_ACCOUNT, account_id)
            if await connection.fetchval(query, account_id, identity_id, *more) is None:
                raise _not_found()
            event = AuditEvent(f"identity.{verb}", f"identity:{identity_id}", account_id)
            await write_audit(connection, actor, event)


async def _link(
    connection: PostgresConnection, account_id: str, link: IdentityLink, actor: Actor
) -> str:
    if await connection.fetchval(_LOCK_ACCOUNT, account_id) is None:
        raise user_not_found(account_id)
    begin = stored_subject(link.subject, "")
    rows = await connection.fetch(_FIND_SUBJECT, link.issuer_id or "", link.subject, begin)
    if any(row["account_id"] != account_id for row in rows):
        raise Conflict("this subject acts or acted for another user")
    if any(row["revoked_at"] is not None for row in rows):
        raise Conflict("this subject was revoked, which cannot be undone")
    found = None if not rows else str(rows[0]["id"])
    if found is None:
        if link.issuer_id is not None and await connection.fetchval(
            _COUNT_OTHER_ISSUERS, account_id, link.issuer_id
        ):
            raise Conflict(
                "the user has identities of another issuer; all identities of a user must be of "
                "one issuer"
            )
        found = new_credential_id()
        kind = CredentialKind.CERTIFICATE if link.issuer_id is None else CredentialKind.IDENTITY
        values = (found, account_id, "Linked", kind, link.issuer_id, link.subject, actor.name)
        await connection.execute(_LINK_IDENTITY, *values)
    models, addresses = link.allowed_models, link.allowed_addresses
    await connection.execute(
        _CHANGE_IDENTITY,
        account_id,
        found,
        sorted(link.scopes),
        None if models is None else list(models),
        None if addresses is None else list(addresses),
        *rate_columns(link.rates),
    )
    detail = {"issuer": link.issuer_id, "subject": link.subject, "allowed_models": models}
    event = AuditEvent("identity.linked", f"identity:{found}", account_id, detail)
    await write_audit(connection, actor, event)
    return found


def _not_found() -> NotFound:
    return NotFound("the user has no such identity")


def _identity(row: "Record") -> Identity:
    subject, account_subject = row["subject"], None
    if row["issuer_id"] is not None:
        subject, account_subject = shown_subject(subject)
    models, addresses = row["allowed_models"], row["allowed_addresses"]
    return from_row(
        Identity,
        row,
        kind=CredentialKind(row["kind"]),
        subject=subject,
        account_subject=None if account_subject == subject else account_subject,
        scopes=scopes_of(row["scopes"]),
        allowed_models=None if models is None else tuple(models),
        allowed_addresses=None if addresses is None else tuple(addresses),
        rates=rates_of(row),
    )
