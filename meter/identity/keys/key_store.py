"""API keys in Postgres: their terms and keyed digests of their secrets, but no secret.

Every change to a key locks its account first. Holds are placed, budgets change and keys are counted
under the same lock.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, NotFound
from meter.identity.keys.key_rights import Administrator, Guard, KeyAct, KeyChange, KeyRights
from meter.identity.keys.key_rows import new_columns, saved_columns, to_credential, to_rights
from meter.identity.keys.key_terms import (
    KeyFilter,
    KeyTerms,
    Period,
    Spending,
    budget_of,
    has_ended,
)
from meter.identity.keys.key_text import MintedKey, Pepper
from meter.identity.principal import Credential, CredentialKind
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.identity.keys")
_CREATE_CREDENTIAL: Final = _QUERIES["create_credential"]
_LIST_CREDENTIALS: Final = _QUERIES["list_credentials"]
_LIST_SPENDING: Final = _QUERIES["list_spending"]
_SAVE_CREDENTIAL: Final = _QUERIES["save_credential"]
_FIND_KEY_SUSPENSION: Final = _QUERIES["find_key_suspension"]
_SUSPEND_CREDENTIAL: Final = _QUERIES["suspend_credential"]
_FORGET_SECRETS: Final = _QUERIES["forget_secrets"]
_END_SECRET: Final = _QUERIES["end_secret"]
_FIND_SECRET_OWNER: Final = _QUERIES["find_secret_owner"]
_LIST_UNLISTED_MODELS: Final = _QUERIES["list_unlisted_models"]
_INSERT_SECRET: Final = _QUERIES["insert_secret"]
_GET_CREDENTIAL: Final = _QUERIES["get_credential"]
_LOAD_KEY_RIGHTS: Final = _QUERIES["load_key_rights"]
_COUNT_SPENDING: Final = _QUERIES["count_spending"]
_REVOKE_CREDENTIAL: Final = _QUERIES["revoke_credential"]
_ACCOUNT_QUERIES: Final = queries("meter.accounts")
_LOCK_ACCOUNT_FUNDS: Final = _ACCOUNT_QUERIES["lock_account_funds"]

Amend = Callable[[KeyTerms], KeyTerms]

_ANYBODY: Final = Actor("anybody")


class CredentialStore:
    """Creates, changes, rotates and revokes API keys. Raises StoreUnavailable in an outage.

    Methods that take the id of a key raise NotFound where the account has no such key, Conflict
    where the key is revoked, and NotPermitted where the guard does not allow the change.
    """

    def __init__(self, pool: PostgresPool, pepper: Pepper) -> None:
        self._pool = pool
        self._pepper = pepper

    async def issue(
        self, actor: Actor, account_id: str, key: MintedKey, terms: KeyTerms, guard: Guard
    ) -> Credential:
        """Store a new key. Raises NotFound for an unknown account."""
        async with self._locked(account_id) as connection:
            await _check(connection, account_id, guard, KeyChange(KeyAct.CREATE, None, terms))
            maker = actor.name if actor.account_id in (None, account_id) else "administrator"
            await connection.execute(
                _CREATE_CREDENTIAL, *new_columns(account_id, key, terms, maker)
            )
            await self._add_secret(connection, key)
            event = _event("created", account_id, key.credential_id, terms.told())
            await write_audit(connection, actor, event)
            made = await _find(connection, account_id, key.credential_id)
        assert made is not None
        return made

    async def list_page(
        self,
        account_id: str,
        wanted: KeyFilter,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Credential]:
        """Return the account's keys, newest first, revoked ones included."""
        created_at, credential_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_CREDENTIALS,
                account_id,
                created_at,
                credential_id,
                limit,
                wanted.status,
                wanted.tag,
                wanted.tag_value,
            )
        return [to_credential(row) for row in rows]

    async def find_caller(self, account_id: str, credential_id: str) -> Credential | None:
        """Return a credential of any kind; None where the account has none with this id."""
        async with acquire(self._pool) as connection:
            return await _find(connection, account_id, credential_id)

    async def get(self, account_id: str, key_id: str) -> tuple[Credential, list[Spending]]:
        """Return a key and the use of its budgets."""
        async with acquire(self._pool) as connection:
            key = _demand_key(await _find(connection, account_id, key_id), key_id)
            rows = await connection.fetch(_LIST_SPENDING, key_id)
        by_period = {Period(row["period"]): row for row in rows}
        spending = []
        for period in Period:
            limit = budget_of(key.budgets, period)
            if limit is not None:
                row = by_period[period]
                used = (row["spent_picos"], row["held_picos"])
                spending.append(Spending(period, limit, *used, row["starts_at"], row["ends_at"]))
        return key, spending

    async def change(
        self, actor: Actor, account_id: str, key_id: str, amend: Amend, guard: Guard
    ) -> Credential:
        """Store the terms that `amend` returns; a new budget counts what was spent before."""
        async with self._locked(account_id) as connection:
            before = await _live(connection, account_id, key_id)
            had = KeyTerms.of(before)
            terms = amend(had)
            await _check(connection, account_id, guard, _change(KeyAct.CHANGE, before, terms))
            changes = changes_between(had.told(), terms.told())
            if changes:
                await connection.execute(_SAVE_CREDENTIAL, *saved_columns(key_id, terms))
                for period in Period:
                    has_budget = budget_of(terms.budgets, period) is not None
                    if has_budget != (budget_of(had.budgets, period) is not None):
                        await connection.execute(_COUNT_SPENDING, key_id, period.value, has_budget)
                event = _event("changed", account_id, key_id, changes)
                await write_audit(connection, actor, event)
            return await _reread(connection, account_id, key_id)

    async def set_suspended(
        self, actor: Actor, account_id: str, key_id: str, is_suspended: bool, guard: Guard
    ) -> Credential:
        """Suspend or resume a key; a repetition changes nothing."""
        act = KeyAct.SUSPEND if is_suspended else KeyAct.RESUME
        async with self._locked(account_id) as connection:
            before = await _live(connection, account_id, key_id)
            by_administrator = await connection.fetchval(
                _FIND_KEY_SUSPENSION, account_id, f"key:{key_id}"
            )
            change = _change(act, before, KeyTerms.of(before), bool(by_administrator))
            await _check(connection, account_id, guard, change)
            # Where both suspend the key, the administrator's suspension takes precedence.
            is_firmer = is_suspended and isinstance(guard, Administrator) and not by_administrator
            if is_suspended == (before.suspended_at is not None) and not is_firmer:
                return before
            await connection.execute(_SUSPEND_CREDENTIAL, key_id, is_suspended)
            detail = {"by_administrator": isinstance(guard, Administrator)} if is_suspended else {}
            event = _event("suspended" if is_suspended else "resumed", account_id, key_id, detail)
            await write_audit(connection, actor, event)
            return await _reread(connection, account_id, key_id)

    async def revoke(self, actor: Actor, account_id: str, key_id: str, guard: Guard) -> None:
        """Revoke a key for ever; a repetition changes nothing."""
        async with self._locked(account_id) as connection:
            before = _demand_key(await _find(connection, account_id, key_id), key_id)
            change = _change(KeyAct.REVOKE, before, KeyTerms.of(before))
            await _check(connection, account_id, guard, change)
            await _revoke(connection, actor, _event("revoked", account_id, key_id, {}))

    async def rotate(
        self, actor: Actor, account_id: str, key: MintedKey, overlap: timedelta, guard: Guard
    ) -> Credential:
        """Add a new secret to the key with the same id; the present secret ends after `overlap`.

        A secret that an earlier rotation replaced ends at once, so at most two secrets are valid.
        """
        key_id = key.credential_id
        async with self._locked(account_id) as connection:
            before = await _live(connection, account_id, key_id)
            change = _change(KeyAct.ROTATE, before, KeyTerms.of(before))
            rights = await _check(connection, account_id, guard, change)
            if has_ended(before, rights.now):
                raise Conflict("the key has expired; set a later expiry first")
            overlap_s = int(overlap.total_seconds())
            await connection.execute(_FORGET_SECRETS, key_id, overlap_s == 0)
            await connection.execute(_END_SECRET, key_id, overlap_s)
            await self._add_secret(connection, key)
            event = _event("rotated", account_id, key_id, {"overlap_s": overlap_s})
            await write_audit(connection, actor, event)
            return await _reread(connection, account_id, key_id)

    async def end_previous_secret(
        self, actor: Actor, account_id: str, key_id: str, guard: Guard
    ) -> None:
        """End the secret that a rotation replaced; without one, nothing changes."""
        async with self._locked(account_id) as connection:
            before = await _live(connection, account_id, key_id)
            change = _change(KeyAct.END_PREVIOUS_SECRET, before, KeyTerms.of(before))
            await _check(connection, account_id, guard, change)
            await connection.execute(_FORGET_SECRETS, key_id, False)
            if before.previous_ends_at is not None:
                event = _event("previous_secret_ended", account_id, key_id, {})
                await write_audit(connection, actor, event)

    async def report_leak(self, plain: str) -> None:
        """Revoke the key with this secret; for an unknown or ended secret, do nothing."""
        digest = self._pepper.digest(plain)
        async with acquire(self._pool) as connection:
            found = await connection.fetchrow(_FIND_SECRET_OWNER, digest)
        if found is None:
            return
        async with self._locked(found["account_id"]) as connection:
            # The secret may have ended while this waited for the lock.
            if await connection.fetchrow(_FIND_SECRET_OWNER, digest) is not None:
                event = _event("leak_reported", found["account_id"], found["id"], {})
                await _revoke(connection, _ANYBODY, event)

    async def list_unlisted_models(self, patterns: Sequence[str]) -> list[str]:
        """Return the ids among these that the catalogue does not list now."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_UNLISTED_MODELS, list(patterns))
        return [row["id"] for row in rows]

    @asynccontextmanager
    async def _locked(self, account_id: str) -> AsyncIterator[PostgresConnection]:
        """Open a transaction with the account locked. Raises NotFound for an unknown account."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchrow(_LOCK_ACCOUNT_FUNDS, account_id) is None:
                raise user_not_found(account_id)
            yield connection

    async def _add_secret(self, connection: PostgresConnection, key: MintedKey) -> None:
        digest = self._pepper.digest(key.plain.reveal())
        await connection.execute(_INSERT_SECRET, digest, key.credential_id)


def key_not_found(key_id: str) -> NotFound:
    """Return the one error for a key that does not exist or belongs to another account."""
    return NotFound(f"the user has no key '{key_id}'")


async def _find(
    connection: PostgresConnection, account_id: str, credential_id: str
) -> Credential | None:
    row = await connection.fetchrow(_GET_CREDENTIAL, account_id, credential_id)
    return None if row is None else to_credential(row)


def _demand_key(found: Credential | None, key_id: str) -> Credential:
    if found is None or found.kind is not CredentialKind.KEY:
        raise key_not_found(key_id)
    return found


async def _live(connection: PostgresConnection, account_id: str, key_id: str) -> Credential:
    """Return the key. Raises Conflict where it is revoked: that cannot be undone."""
    key = _demand_key(await _find(connection, account_id, key_id), key_id)
    if key.revoked_at is not None:
        raise Conflict("the key is revoked, which cannot be undone")
    return key


async def _reread(connection: PostgresConnection, account_id: str, key_id: str) -> Credential:
    return _demand_key(await _find(connection, account_id, key_id), key_id)


async def _check(
    connection: PostgresConnection, account_id: str, guard: Guard, change: KeyChange
) -> KeyRights:
    """Let the guard judge the change, by the rights read under the lock of the account."""
    row = await connection.fetchrow(_LOAD_KEY_RIGHTS, account_id, guard.caller_id)
    assert row is not None
    caller = None
    if guard.caller_id is not None and row["is_caller_live"]:
        caller = await _find(connection, account_id, guard.caller_id)
    rights = to_rights(row, caller)
    guard.check(change, rights)
    return rights


def _change(
    act: KeyAct, before: Credential, after: KeyTerms, by_administrator: bool = False
) -> KeyChange:
    return KeyChange(act, before, after, by_administrator)


async def _revoke(connection: PostgresConnection, actor: Actor, event: AuditEvent) -> None:
    key_id = event.subject.removeprefix("key:")
    status = await connection.execute(_REVOKE_CREDENTIAL, key_id)
    if not status.endswith(" 0"):
        await write_audit(connection, actor, event)


def _event(verb: str, account_id: str, key_id: str, detail: dict[str, Any]) -> AuditEvent:
    return AuditEvent(f"key.{verb}", f"key:{key_id}", account_id, detail)
