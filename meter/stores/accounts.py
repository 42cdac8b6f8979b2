"""Accounts in Postgres."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from meter.accounts import Account, Funds
from meter.errors import Conflict, InvalidRequest, NotFound
from meter.stores.postgres import PostgresPool, acquire, query


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be opened."""

    id: str
    email: str
    name: str | None
    plan_id: str
    markup_bps: int | None


@dataclass(frozen=True, slots=True)
class Amendment:
    """New terms of an account: only what is named in `changes` changes."""

    changes: frozenset[str]
    name: str | None = None
    plan_id: str | None = None
    markup_bps: int | None = None


class AccountStore:
    """Opens, finds and amends accounts. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def create(self, new: NewAccount) -> Account:
        """Open an account; raises Conflict for a taken id or email, InvalidRequest for its plan."""
        values = (new.id, new.email, new.name, new.plan_id, new.markup_bps)
        async with acquire(self._pool) as connection:
            try:
                row = await connection.fetchrow(query("create_account"), *values)
            except asyncpg.UniqueViolationError as error:
                taken = "email" if error.constraint_name == "accounts_email" else "id"
                raise Conflict(f"a user with this {taken} exists already") from None
            except asyncpg.ForeignKeyViolationError:
                raise _no_plan(new.plan_id) from None
        assert row is not None
        return _account(row)

    async def get(self, account_id: str) -> Account:
        """The account; raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query("get_account"), account_id)
        return _found(row, account_id)

    async def list_page(
        self, email: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Account]:
        """Accounts, newest first, that follow the one at `after`."""
        created_at, account_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                query("list_accounts"), email, created_at, account_id, limit
            )
        return [_account(row) for row in rows]

    async def amend(self, account_id: str, amendment: Amendment) -> Account:
        """Change an account's terms; raises NotFound, and InvalidRequest for an unknown plan."""
        async with acquire(self._pool) as connection:
            try:
                row = await connection.fetchrow(
                    query("amend_account"),
                    account_id,
                    "name" in amendment.changes,
                    amendment.name,
                    amendment.plan_id,
                    "markup_bps" in amendment.changes,
                    amendment.markup_bps,
                )
            except asyncpg.ForeignKeyViolationError:
                raise _no_plan(amendment.plan_id) from None
        return _found(row, account_id)

    async def set_suspended(self, account_id: str, is_suspended: bool) -> Account:
        """Suspend or resume; holds are judged by it at once. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query("suspend_account"), account_id, is_suspended)
        return _found(row, account_id)


def user_not_found(account_id: str) -> NotFound:
    """The one answer for an account that does not exist."""
    return NotFound(f"there is no user '{account_id}'")


def _no_plan(plan_id: str | None) -> InvalidRequest:
    return InvalidRequest(f"there is no plan '{plan_id}'")


def _found(row: asyncpg.Record | None, account_id: str) -> Account:
    if row is None:
        raise user_not_found(account_id)
    return _account(row)


def _account(row: asyncpg.Record) -> Account:
    return Account(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        plan_id=row["plan_id"],
        markup_bps=row["markup_bps"],
        is_suspended=row["is_suspended"],
        funds=Funds(row["balance_picos"], row["held_picos"]),
        created_at=row["created_at"],
    )
