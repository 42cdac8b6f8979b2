"""Passes in Postgres: their terms and whether they are revoked, but not their JWTs."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, NotFound, NotPermitted
from meter.identity.keys.key_rights import MOST_CHANGES_A_DAY, TOO_MANY_CHANGES
from meter.identity.passes import MAX_LIVE_PASSES, Pass
from meter.money import format_usd
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.scopes import scopes_of

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_LOCK_CREDENTIAL: Final = _QUERIES["lock_credential"]
_COUNT_LIVE_PASSES: Final = _QUERIES["count_live_passes"]
_CREATE_PASS: Final = _QUERIES["create_pass"]
_LIST_PASSES: Final = _QUERIES["list_passes"]
_LOCK_ACCOUNT: Final = _QUERIES["lock_account"]
_REVOKE_PASS: Final = _QUERIES["revoke_pass"]
_FIND_ACCOUNT_CREDENTIAL: Final = _QUERIES["find_account_credential"]
_REVOKE_PASSES: Final = _QUERIES["revoke_passes"]
_FORGET_PASSES: Final = _QUERIES["forget_passes"]
_FORGET_SPENDING: Final = _QUERIES["forget_spending"]

FORGOTTEN_AT_ONCE: Final = 1_000


class PassStore:
    """Stores, lists and revokes passes. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool, most_live: int = MAX_LIVE_PASSES) -> None:
        self._pool = pool
        self._most_live = most_live

    async def add(self, new: Pass, actor: Actor) -> None:
        """Store a new pass while its credential is locked.

        Raises NotPermitted where the credential has ended or its account is suspended, Conflict
        where the credential has MAX_LIVE_PASSES already.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            credential = await connection.fetchrow(
                _LOCK_CREDENTIAL, new.credential_id, new.account_id
            )
            if credential is None:
                raise NotPermitted(
                    "the credential is revoked, suspended or expired, or its issuer is disabled"
                )
            if credential["is_suspended"]:
                raise NotPermitted("the user is suspended")
            if actor.account_id is not None and (
                credential["changes_of_a_day"] >= MOST_CHANGES_A_DAY
            ):
                raise NotPermitted(TOO_MANY_CHANGES)
            live = await connection.fetchval(_COUNT_LIVE_PASSES, new.credential_id)
            if live >= self._most_live:
                raise Conflict(
                    f"the credential has {self._most_live} live passes, which is the most; "
                    "revoke some, or wait until they expire"
                )
            await connection.execute(
                _CREATE_PASS,
                new.id,
                new.credential_id,
                new.account_id,
                sorted(new.scopes),
                None if new.allowed_models is None else list(new.allowed_models),
                new.budget_picos,
                new.created_by,
                new.created_at,
                new.expires_at,
            )
            detail = {
                "credential": new.credential_id,
                "scopes": sorted(new.scopes),
                "allowed_models": new.allowed_models,
                "budget": None if new.budget_picos is None else format_usd(new.budget_picos),
                "expires_at": new.expires_at.isoformat(),
            }
            event = AuditEvent("pass.created", f"pass:{new.id}", new.account_id, detail)
            await write_audit(connection, actor, event)

    async def list_page(
        self,
        account_id: str,
        credential_id: str | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Pass]:
        """Return an account's passes, newest first; ended passes are listed for a day."""
        created_at, pass_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_PASSES, account_id, credential_id, created_at, pass_id, limit
            )
        return [_pass(row) for row in rows]

    async def revoke(self, account_id: str, pass_id: str, actor: Actor) -> None:
        """Revoke a pass. Raises NotFound for a pass that the account does not have."""
        async with acquire(self._pool) as connection, connection.transaction():
            # Wait for holds that are being placed: after the revocation returns, none is placed.
            await connection.execute(_LOCK_ACCOUNT, account_id)
            row = await connection.fetchrow(_REVOKE_PASS, account_id, pass_id)
            if row is None:
                raise NotFound("the user has no such pass")
            if row["is_new"]:
                await write_audit(
                    connection, actor, AuditEvent("pass.revoked", f"pass:{pass_id}", account_id)
                )

    async def revoke_all(self, account_id: str, credential_id: str | None, actor: Actor) -> int:
        """Revoke all passes of an account, or of one credential; returns the number of live ones.

        Raises NotFound for another account's credential.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            if credential_id is not None and not await connection.fetchval(
                _FIND_ACCOUNT_CREDENTIAL, account_id, credential_id
            ):
                raise NotFound("the user has no such credential")
            await connection.execute(_LOCK_ACCOUNT, account_id)
            ended = len(await connection.fetch(_REVOKE_PASSES, account_id, credential_id))
            if ended:
                detail = {"credential": credential_id, "ended": ended}
                event = AuditEvent("pass.all_revoked", f"user:{account_id}", account_id, detail)
                await write_audit(connection, actor, event)
        return ended

    async def forget(self, ended_before: datetime, periods_before: date) -> tuple[int, int]:
        """Delete one batch of old passes, and one of the spending in old periods.

        Returns the number of each; FORGOTTEN_AT_ONCE means that there may be more.
        """
        async with acquire(self._pool) as connection:
            passes = await connection.fetch(_FORGET_PASSES, ended_before, FORGOTTEN_AT_ONCE)
            periods = await connection.fetch(_FORGET_SPENDING, periods_before, FORGOTTEN_AT_ONCE)
        return len(passes), len(periods)


def _pass(row: "Record") -> Pass:
    models = None if row["allowed_models"] is None else tuple(row["allowed_models"])
    return from_row(Pass, row, scopes=scopes_of(row["scopes"]), allowed_models=models)
