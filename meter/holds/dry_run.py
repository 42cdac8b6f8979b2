"""A dry run: all statements of a decision in one transaction that is always rolled back.

The statements are those of a real request. The first use of an identity creates an account, and
a hold is placed; the rollback undoes both. Locks are held for as long as one explanation takes.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

from meter.accounts.account import Funds
from meter.errors import NotFound
from meter.holds.hold import HoldAnswer, HoldRequest
from meter.holds.hold_store import to_answer, to_arguments
from meter.identity.credential_state import (
    BudgetState,
    CredentialState,
    HoldFacts,
    PassState,
    SecretState,
)
from meter.identity.principal import CredentialKind
from meter.identity.principal_store import PostgresPrincipals
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries, store_errors
from meter.postgres.rows import from_row

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.holds")
_FIND_AVAILABLE: Final = _QUERIES["find_available"]
_PLACE_HOLDS: Final = _QUERIES["place_holds"]
_EXPLAIN_FUNDS: Final = _QUERIES["explain_funds"]
_EXPLAIN_BUDGETS: Final = _QUERIES["explain_budgets"]
_EXPLAIN_OWNER: Final = _QUERIES["explain_owner"]
_EXPLAIN_CREDENTIAL: Final = _QUERIES["explain_credential"]

# The hold is rolled back anyway: any valid lifetime will do.
LIFETIME: Final = timedelta(minutes=1)


@contextlib.asynccontextmanager
async def open_dry_run(pool: PostgresPool) -> AsyncIterator["DryRun"]:
    """Yield a dry run, and roll it back however it ends. Raises StoreUnavailable."""
    async with acquire(pool) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield DryRun(connection)
        finally:
            await transaction.rollback()


class DryRun:
    """The stores of a decision within one transaction, and the facts behind their answers."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self.principals = PostgresPrincipals(cast(PostgresPool, _OneConnectionPool(connection)))

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Return the answer that placing the hold would give. Raises StoreUnavailable."""
        with store_errors():
            (row,) = await self._connection.fetch(
                _PLACE_HOLDS, *to_arguments([request], LIFETIME, may_wait=True)
            )
        return to_answer(row)

    async def find_available(self, account_id: str) -> int:
        """Return what new holds of the account may use; 0 for an unknown one.

        Raises StoreUnavailable.
        """
        with store_errors():
            available: int | None = await self._connection.fetchval(_FIND_AVAILABLE, account_id)
        return available or 0

    async def find_hold_facts(self, request: HoldRequest) -> HoldFacts:
        """Return the facts that decide about a hold, before the hold is placed.

        Raises NotFound for an unknown account, StoreUnavailable.
        """
        with store_errors():
            row = await self._connection.fetchrow(
                _EXPLAIN_FUNDS, request.account_id, request.credential_id
            )
            budgets = await self._connection.fetch(
                _EXPLAIN_BUDGETS, request.credential_id, request.pass_id
            )
        if row is None:
            raise NotFound("account")
        return HoldFacts(
            Funds(row["balance_picos"], row["held_picos"], row["expired_picos"]),
            row["account_running"],
            row["key_running"],
            tuple(BudgetState(**dict(budget)) for budget in budgets),
        )

    async def find_owner(
        self,
        issuer_id: str | None = None,
        subjects: Sequence[str] = (),
        pass_id: str | None = None,
        account_id: str | None = None,
    ) -> str | None:
        """Return the id of the credential that was made for one of these, live or not.

        A subject is one of an issuer; the `issuer_id` of certificates is empty. None when there
        never was such a credential. Raises StoreUnavailable.
        """
        with store_errors():
            found: str | None = await self._connection.fetchval(
                _EXPLAIN_OWNER, pass_id, issuer_id, list(subjects), account_id
            )
        return found

    async def find_state(
        self, credential_id: str, digest: bytes | None = None, pass_id: str | None = None
    ) -> CredentialState | None:
        """Return the state of a credential; None when there is none. Raises StoreUnavailable."""
        with store_errors():
            row = await self._connection.fetchrow(
                _EXPLAIN_CREDENTIAL, credential_id, digest, pass_id
            )
        return None if row is None else _to_state(row)


class _OneConnectionPool:
    """A pool with one connection, for stores that take theirs from a pool."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def acquire(
        self,
        *,
        timeout: float | None = None,
    ) -> contextlib.AbstractAsyncContextManager[PostgresConnection]:
        """Return the connection; it is not closed afterwards."""
        return contextlib.nullcontext(self._connection)


def _to_state(row: "Record") -> CredentialState:
    has_pass, has_secret = row["has_pass"], row["has_secret"]
    return from_row(
        CredentialState,
        row,
        kind=CredentialKind(row["kind"]),
        secret=SecretState(row["secret_ends_at"]) if has_secret else None,
        presented_pass=(
            PassState(row["pass_expires_at"], row["pass_revoked_at"]) if has_pass else None
        ),
    )
