"""API keys in Postgres: their terms and keyed digests of their secrets, but no secret.

Changes are written through `LockedKeys`, in a transaction that holds the lock of the account. Holds
are placed, budgets change and keys are counted under the same lock. The store judges nothing:
`meter.identity.keys.key_service` decides who may change a key.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, NotFound
from meter.identity.keys.key_rights import MOST_KEYS_A_DAY, KeyRights
from meter.identity.keys.key_rows import new_columns, saved_columns, to_credential, to_rights
from meter.identity.keys.key_terms import KeyFilter, KeyTerms, Period, Spending, budget_of
from meter.identity.keys.key_text import MintedKey
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


@dataclass(frozen=True, slots=True)
class SecretOwner:
    """The key that a secret belongs to."""

    account_id: str
    key_id: str


class LockedKeys:
    """The keys of one account, in one transaction that holds the lock of the account.

    The rights that are read here stay true until the transaction commits. An exception undoes every
    write, including the lines of the audit log.
    """

    def __init__(self, connection: PostgresConnection, account_id: str) -> None:
        self._connection = connection
        self._account_id = account_id

    @property
    def connection(self) -> PostgresConnection:
        """Return the connection of the transaction, for changes beside the keys."""
        return self._connection

    async def get(self, key_id: str) -> Credential:
        """Return a key, also a revoked one. Raises NotFound."""
        return _require_key(await _find(self._connection, self._account_id, key_id), key_id)

    async def get_live(self, key_id: str) -> Credential:
        """Return a key. Raises NotFound, and Conflict where the key is revoked."""
        key = await self.get(key_id)
        if key.revoked_at is not None:
            raise Conflict("the key is revoked, which cannot be undone")
        return key

    async def load_rights(self, caller_id: str | None) -> KeyRights:
        """Return the rights that the account and the credential `caller_id` have now."""
        row = await self._connection.fetchrow(
            _LOAD_KEY_RIGHTS,
            self._account_id,
            caller_id,
            MOST_KEYS_A_DAY,
        )
        assert row is not None
        caller = None
        if caller_id is not None and row["is_caller_live"]:
            caller = await _find(self._connection, self._account_id, caller_id)
        return to_rights(row, caller)

    async def is_suspended_by_administrator(self, key_id: str) -> bool:
        """Return whether an administrator suspended the key last. The audit log knows."""
        return bool(
            await self._connection.fetchval(_FIND_KEY_SUSPENSION, self._account_id, f"key:{key_id}")
        )

    async def insert(self, key: MintedKey, terms: KeyTerms, maker: str) -> None:
        """Store a new key, without its secret."""
        columns = new_columns(self._account_id, key, terms, maker)
        await self._connection.execute(_CREATE_CREDENTIAL, *columns)

    async def insert_secret(self, key_id: str, digest: bytes) -> None:
        """Store the keyed digest of a new secret of the key."""
        await self._connection.execute(_INSERT_SECRET, digest, key_id)

    async def save_terms(self, key_id: str, before: KeyTerms, after: KeyTerms) -> None:
        """Store new terms; a new budget counts what the key spent in the period already."""
        await self._connection.execute(_SAVE_CREDENTIAL, *saved_columns(key_id, after))
        for period in Period:
            has_budget = budget_of(after.budgets, period) is not None
            if has_budget != (budget_of(before.budgets, period) is not None):
                await self._connection.execute(_COUNT_SPENDING, key_id, period.value, has_budget)

    async def set_suspended(self, key_id: str, is_suspended: bool) -> None:
        """Suspend or resume a key."""
        await self._connection.execute(_SUSPEND_CREDENTIAL, key_id, is_suspended)

    async def end_secret(self, key_id: str, overlap_s: int) -> None:
        """Let the present secret end after `overlap_s`, and an earlier one at once."""
        await self._connection.execute(_FORGET_SECRETS, key_id, overlap_s == 0)
        await self._connection.execute(_END_SECRET, key_id, overlap_s)

    async def end_previous_secret(self, key_id: str) -> None:
        """End the secret that a rotation replaced, if there is one."""
        await self._connection.execute(_FORGET_SECRETS, key_id, False)

    async def has_secret(self, digest: bytes) -> bool:
        """Return whether a secret is still valid."""
        return await self._connection.fetchrow(_FIND_SECRET_OWNER, digest) is not None

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key for ever. Returns whether it was not revoked before."""
        status = await self._connection.execute(_REVOKE_CREDENTIAL, key_id)
        return not status.endswith(" 0")

    async def audit(
        self, actor: Actor, verb: str, key_id: str, detail: dict[str, Any] | None = None
    ) -> None:
        """Write a line about a key to the audit log, in the transaction of the change."""
        event = AuditEvent(f"key.{verb}", f"key:{key_id}", self._account_id, detail or {})
        await write_audit(self._connection, actor, event)


class KeyStore:
    """Finds API keys, and locks those of an account for changes.

    Raises StoreUnavailable in an outage.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def locked(self, account_id: str) -> AsyncIterator[LockedKeys]:
        """Open a transaction with the account locked. Raises NotFound for an unknown account."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchrow(_LOCK_ACCOUNT_FUNDS, account_id) is None:
                raise user_not_found(account_id)
            yield LockedKeys(connection, account_id)

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

    async def find_credential(self, account_id: str, credential_id: str) -> Credential | None:
        """Return a credential of any kind; None where the account has none with this id."""
        async with acquire(self._pool) as connection:
            return await _find(connection, account_id, credential_id)

    async def get(self, account_id: str, key_id: str) -> tuple[Credential, list[Spending]]:
        """Return a key and the use of its budgets. Raises NotFound."""
        async with acquire(self._pool) as connection:
            key = _require_key(await _find(connection, account_id, key_id), key_id)
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

    async def find_secret_owner(self, digest: bytes) -> SecretOwner | None:
        """Return the key with this secret; None for an unknown or ended secret."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_SECRET_OWNER, digest)
        return None if row is None else SecretOwner(row["account_id"], row["id"])

    async def list_unlisted_models(self, patterns: Sequence[str]) -> list[str]:
        """Return the ids among these that the catalogue does not list now."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_UNLISTED_MODELS, list(patterns))
        return [row["id"] for row in rows]


async def _find(
    connection: PostgresConnection, account_id: str, credential_id: str
) -> Credential | None:
    row = await connection.fetchrow(_GET_CREDENTIAL, account_id, credential_id)
    return None if row is None else to_credential(row)


def _require_key(found: Credential | None, key_id: str) -> Credential:
    """Return the key. Raises the one NotFound for an unknown key and one of another account."""
    if found is None or found.kind is not CredentialKind.KEY:
        raise NotFound(f"the user has no key '{key_id}'")
    return found
