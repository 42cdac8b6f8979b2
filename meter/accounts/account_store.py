"""Accounts in Postgres."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from meter.accounts.account import Account, Funds
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, NotFound, UnknownReference
from meter.limits.limits import Rates, rates_to_json
from meter.limits.rate_rows import rate_columns, rates_of
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.accounts")
_CREATE_ACCOUNT: Final = _QUERIES["create_account"]
_GET_ACCOUNT: Final = _QUERIES["get_account"]
_LIST_ACCOUNTS: Final = _QUERIES["list_accounts"]
_LOCK_ACCOUNT_TERMS: Final = _QUERIES["lock_account_terms"]
_SAVE_ACCOUNT: Final = _QUERIES["save_account"]


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be opened."""

    id: str
    email: str
    name: str | None
    plan_id: str
    markup_bps: int | None
    rates: Rates = field(default_factory=Rates)
    may_manage_keys: bool = True


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """New values for some terms of an account, by the names of the fields of Account.

    `rates` has the new limits by the names of the fields of Rates. All that is not named stays.
    """

    terms: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, int | None] = field(default_factory=dict)

    def applied_to(self, before: Account) -> Account:
        """Return the account with the changes."""
        return replace(before, rates=replace(before.rates, **self.rates), **self.terms)


class AccountStore:
    """Opens, finds and changes accounts. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def create(self, actor: Actor, new: NewAccount) -> Account:
        """Open an account.

        Raises Conflict for an id or email that is taken, UnknownReference for an unknown plan.
        """
        values = (new.id, new.email, new.name, new.plan_id, new.markup_bps)
        terms = (*rate_columns(new.rates), new.may_manage_keys)
        async with acquire(self._pool) as connection, connection.transaction():
            try:
                row = await connection.fetchrow(_CREATE_ACCOUNT, *values, *terms)
            except asyncpg.UniqueViolationError as error:
                taken = "email" if error.constraint_name == "accounts_email" else "id"
                raise Conflict(f"a user with this {taken} exists already") from None
            except asyncpg.ForeignKeyViolationError:
                raise _no_plan(new.plan_id) from None
            assert row is not None
            account = _account(row)
            detail = {"email": account.email, **_audit_detail(account)}
            await write_audit(connection, actor, _event("user.created", account.id, detail))
        return account

    async def get(self, account_id: str) -> Account:
        """Return the account. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_GET_ACCOUNT, account_id)
        return _found(row, account_id)

    async def list_page(
        self, email: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Account]:
        """Return accounts, newest first, that follow the one at `after`."""
        created_at, account_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_ACCOUNTS, email, created_at, account_id, limit)
        return [_account(row) for row in rows]

    async def change(self, actor: Actor, account_id: str, changes: AccountChanges) -> Account:
        """Change an account's terms. Raises NotFound, and UnknownReference for an unknown plan."""
        return await self._change(actor, account_id, "user.changed", changes)

    async def set_suspended(self, actor: Actor, account_id: str, is_suspended: bool) -> Account:
        """Suspend or resume an account; this applies to the next hold. Raises NotFound."""
        action = "user.suspended" if is_suspended else "user.resumed"
        changes = AccountChanges({"is_suspended": is_suspended})
        return await self._change(actor, account_id, action, changes)

    async def _change(
        self, actor: Actor, account_id: str, action: str, changes: AccountChanges
    ) -> Account:
        """Apply changes under a lock. Writes nothing, also to the audit log, if nothing changes."""
        async with acquire(self._pool) as connection, connection.transaction():
            before = _found(await connection.fetchrow(_LOCK_ACCOUNT_TERMS, account_id), account_id)
            after = changes.applied_to(before)
            differences = changes_between(_audit_detail(before), _audit_detail(after))
            if not differences:
                return before
            try:
                await connection.execute(
                    _SAVE_ACCOUNT,
                    after.id,
                    after.name,
                    after.plan_id,
                    after.markup_bps,
                    *rate_columns(after.rates),
                    after.may_manage_keys,
                    after.is_suspended,
                )
            except asyncpg.ForeignKeyViolationError:
                raise _no_plan(after.plan_id) from None
            await write_audit(connection, actor, _event(action, account_id, differences))
        return after


def user_not_found(account_id: str) -> NotFound:
    """Return the one error for an account that does not exist."""
    return NotFound(f"there is no user '{account_id}'")


def _no_plan(plan_id: str) -> UnknownReference:
    return UnknownReference(f"there is no plan '{plan_id}'")


def _found(row: asyncpg.Record | None, account_id: str) -> Account:
    if row is None:
        raise user_not_found(account_id)
    return _account(row)


def _account(row: asyncpg.Record) -> Account:
    funds = Funds(row["balance_picos"], row["held_picos"], row["expired_picos"])
    return from_row(Account, row, funds=funds, rates=rates_of(row))


def _event(action: str, account_id: str, detail: dict[str, Any]) -> AuditEvent:
    return AuditEvent(action, f"user:{account_id}", account_id, detail)


def _audit_detail(account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "plan": account.plan_id,
        "markup_bps": account.markup_bps,
        **rates_to_json(account.rates),
        "may_manage_keys": account.may_manage_keys,
        "is_suspended": account.is_suspended,
    }
