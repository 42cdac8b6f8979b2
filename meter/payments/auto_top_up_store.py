"""Automatic top-ups in Postgres: who wants them, and one in flight for each account."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

import asyncpg

from meter.audit.audit_store import write_audit
from meter.audit.events import SYSTEM, Actor, AuditEvent
from meter.errors import NotFound
from meter.money import format_usd
from meter.payments.purchase import Purchase, PurchaseKind
from meter.payments.purchase_store import read_purchase
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.payments")
_SAVE: Final = _QUERIES["save_auto_top_up"]
_DELETE: Final = _QUERIES["delete_auto_top_up"]
_FIND: Final = _QUERIES["find_auto_top_up"]
_LIST_DUE: Final = _QUERIES["list_due_auto_top_ups"]
_LOCK: Final = _QUERIES["lock_auto_top_up"]
_MEASURE_MONTH: Final = _QUERIES["measure_month"]
_PAUSE: Final = _QUERIES["pause_auto_top_up"]
_PUT_OFF: Final = _QUERIES["put_off_auto_top_up"]
_GET_DECLINES: Final = _QUERIES["get_declines"]
_CLEAR_DECLINES: Final = _QUERIES["clear_declines"]
_LIST_OPEN: Final = _QUERIES["list_open_auto_top_ups"]
_INSERT_PURCHASE: Final = _QUERIES["insert_purchase"]


@dataclass(frozen=True, slots=True)
class AutoTopUp:
    """The automatic top-ups of an account.

    `spent_picos` is what they have bought since the month began (UTC), those in flight too.
    `paused_reason` says why nothing is charged until the account says so again.
    """

    account_id: str
    threshold_picos: int
    amount_picos: int
    ceiling_picos: int
    paused_reason: str | None
    spent_picos: int


class AutoTopUpStore:
    """Keeps automatic top-ups. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def get(self, account_id: str) -> AutoTopUp:
        """Return the automatic top-ups of an account. Raises NotFound while they are off."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND, account_id)
        if row is None:
            raise NotFound("automatic top-ups are off")
        return from_row(AutoTopUp, row)

    async def switch_on(
        self,
        account_id: str,
        threshold_picos: int,
        amount_picos: int,
        ceiling_picos: int,
        actor: Actor,
    ) -> None:
        """Switch automatic top-ups on, or change them; this ends a pause."""
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(
                _SAVE, account_id, threshold_picos, amount_picos, ceiling_picos
            )
            detail = {
                "threshold": format_usd(threshold_picos),
                "amount": format_usd(amount_picos),
                "monthly_ceiling": format_usd(ceiling_picos),
            }
            event = AuditEvent("auto_top_up.set", f"user:{account_id}", account_id, detail)
            await write_audit(connection, actor, event)

    async def switch_off(self, account_id: str, actor: Actor) -> None:
        """Switch automatic top-ups off. Raises NotFound where they are off already."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchval(_DELETE, account_id) is None:
                raise NotFound("automatic top-ups are off")
            event = AuditEvent("auto_top_up.removed", f"user:{account_id}", account_id)
            await write_audit(connection, actor, event)

    async def list_due(self, limit: int) -> list[str]:
        """Return accounts whose available credit is below their threshold."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_DUE, limit)
        return [row["account_id"] for row in rows]

    async def open_purchase(self, account_id: str, is_live: bool) -> Purchase | None:
        """Open a top-up of an account that is low; None where it is low no more.

        None also where one is in flight, or the month's ceiling leaves no room.

        A unique index keeps a second one out, whatever other meters do at the same moment.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            terms = await connection.fetchrow(_LOCK, account_id)
            if terms is None:
                return None
            # A statement of its own: a top-up that ended since the account was found to be low has
            # credited it, and its snapshot must see that.
            month = await connection.fetchrow(_MEASURE_MONTH, account_id)
            assert month is not None
            amount_picos = terms["amount_picos"]
            has_room = month["spent_picos"] + amount_picos <= terms["ceiling_picos"]
            if not month["is_low"] or not has_room:
                return None
            kind = PurchaseKind.AUTO_TOP_UP.value
            try:
                # In a savepoint, so that the refusal by the index ends no more than itself.
                async with connection.transaction():
                    row = await connection.fetchrow(
                        _INSERT_PURCHASE, uuid4(), account_id, kind, is_live, amount_picos, False
                    )
            except asyncpg.UniqueViolationError:
                return None
        assert row is not None
        return read_purchase(row)

    async def pause(self, account_id: str, reason: str) -> bool:
        """Charge nothing more until the account says so again; return whether this paused it."""
        async with acquire(self._pool) as connection, connection.transaction():
            paused = await connection.fetchval(_PAUSE, account_id, reason)
            if paused is not None:
                detail = {"reason": reason}
                event = AuditEvent("auto_top_up.paused", f"user:{account_id}", account_id, detail)
                await write_audit(connection, SYSTEM, event)
        return paused is not None

    async def put_off(self, account_id: str, after: timedelta) -> None:
        """Note a decline, and put the next attempt off."""
        async with acquire(self._pool) as connection:
            await connection.execute(_PUT_OFF, account_id, after)

    async def declines(self, account_id: str) -> int:
        """Return how often in a row the card was declined."""
        async with acquire(self._pool) as connection:
            found: int | None = await connection.fetchval(_GET_DECLINES, account_id)
        return found or 0

    async def clear_declines(self, account_id: str) -> None:
        """Note that a charge has worked."""
        async with acquire(self._pool) as connection:
            await connection.execute(_CLEAR_DECLINES, account_id)

    async def list_open(self, is_live: bool, older_than: timedelta, limit: int) -> list[Purchase]:
        """Return top-ups in flight that are older."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_OPEN, is_live, older_than, limit)
        return [read_purchase(row) for row in rows]
