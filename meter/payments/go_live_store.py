"""Going live in Postgres: the purchase that proves it, and when all checks had passed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.payments.purchase import PurchaseState
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.payments")
_FIND: Final = _QUERIES["find_go_live"]
_BEGIN: Final = _QUERIES["begin_go_live"]
_PASS: Final = _QUERIES["pass_go_live"]
_IS_OPEN: Final = _QUERIES["is_open"]


@dataclass(frozen=True, slots=True)
class ProofState:
    """The purchase that proves that selling works, and what became of it.

    `events_by_webhook` counts the events that Stripe sent about it and that were followed.
    """

    purchase_id: UUID
    account_id: str
    session_id: str | None
    state: PurchaseState
    payment_id: str | None
    credited_picos: int | None
    events_by_webhook: int
    passed_at: datetime | None
    passed_by: str | None


class GoLiveStore:
    """Keeps the state of going live. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def is_open(self) -> bool:
        """Return whether credit may be sold for real money."""
        async with acquire(self._pool) as connection:
            found: bool = await connection.fetchval(_IS_OPEN)
        return found

    async def find(self, is_live: bool) -> ProofState | None:
        """Return the state in a mode; None before the first attempt."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND, is_live)
        if row is None:
            return None
        return from_row(ProofState, row, state=PurchaseState(row["state"]))

    async def begin(self, is_live: bool, purchase_id: UUID) -> None:
        """Note the purchase that is to prove that selling works."""
        async with acquire(self._pool) as connection:
            await connection.execute(_BEGIN, is_live, purchase_id)

    async def note_passed(self, actor: Actor) -> None:
        """Open the shop for real money."""
        async with acquire(self._pool) as connection, connection.transaction():
            passed_at = await connection.fetchval(_PASS, True, actor.name)
            if passed_at is not None:
                await write_audit(connection, actor, AuditEvent("selling.went_live", "selling"))
