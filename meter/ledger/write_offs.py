"""Bounds the debt of accounts: the house bears what is beyond an account's limit.

A charge above its hold is posted in full, so parallel requests may each take an account further
below zero. The account is blocked at once. When its last hold has ended, a posting moves what is
beyond its limit from the losses of the house to the account. Debt by refunds and disputes is
not among it: the customer has that money.

A later correction may show that a request cost less, so that the account owed less. Then the house
takes back what it bore too much, in the transaction of the correction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import SYSTEM, Actor, AuditEvent
from meter.errors import StoreUnavailable
from meter.ledger.credit_store import append_credit
from meter.ledger.postings import write_off
from meter.money import format_usd
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.process.periodic import periodic

_QUERIES: Final = queries("meter.ledger")
_LIST_OVERDRAWN: Final = _QUERIES["list_overdrawn"]
_FORGET_REVERSED_DEBT: Final = _QUERIES["forget_reversed_debt"]
_LOCK_OVERDRAWN: Final = _QUERIES["lock_overdrawn"]
_READ_CLOCK: Final = _QUERIES["read_clock"]
_INSERT_WRITE_OFF: Final = _QUERIES["insert_write_off"]
_LIST_WRITE_OFFS: Final = _QUERIES["list_write_offs"]
_SET_MAX_DEBT: Final = _QUERIES["set_max_debt"]
_GET_MAX_DEBT: Final = _QUERIES["get_max_debt"]
_LOCK_OUTSTANDING_WRITE_OFFS: Final = _QUERIES["lock_outstanding_write_offs"]
_NOTE_TAKEN_BACK: Final = _QUERIES["note_taken_back"]
_OWE_AGAIN: Final = _QUERIES["owe_again"]

LOOK_EVERY_S: Final = 5.0
RETRY_S: Final = 5.0
ACCOUNTS_AT_ONCE: Final = 100
TAKEN_BACK: Final = "a request cost less than was charged when the house bore the debt"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WriteOff:
    """An amount that the house bore of an account's debt.

    `taken_back_picos` is the part of it that later corrections showed not to be owed.
    """

    id: int
    posting_id: UUID
    account_id: str
    amount_picos: int
    taken_back_picos: int
    written_off_at: datetime


@dataclass(frozen=True, slots=True)
class Refund:
    """The amount by which a correction lowered the charge of a request that began at an instant."""

    account_id: str
    placed_at: datetime
    amount_picos: int


async def take_back(connection: PostgresConnection, refunds: Sequence[Refund]) -> None:
    """Take back from refunds what the house bore of the debts that these charges caused.

    Runs in the transaction of the corrections, after they moved the balances: the accounts are
    locked. A request that began after a write-off is no part of that debt.
    """
    account_ids = sorted({refund.account_id for refund in refunds})
    if not account_ids:
        return
    rows = await connection.fetch(_LOCK_OUTSTANDING_WRITE_OFFS, account_ids)
    outstanding = {row["id"]: row["outstanding_picos"] for row in rows}
    for refund in refunds:
        left_picos = refund.amount_picos
        for row in rows:
            is_of_it = (
                row["account_id"] == refund.account_id and row["written_off_at"] > refund.placed_at
            )
            taken_picos = min(left_picos, outstanding[row["id"]]) if is_of_it else 0
            if taken_picos:
                await _take_back(connection, row["id"], refund.account_id, taken_picos)
                outstanding[row["id"]] -= taken_picos
                left_picos -= taken_picos


async def _take_back(
    connection: PostgresConnection, write_off_id: int, account_id: str, picos: int
) -> None:
    await connection.execute(_NOTE_TAKEN_BACK, write_off_id, picos)
    await connection.execute(_OWE_AGAIN, account_id, picos)
    booked_at = await connection.fetchval(_READ_CLOCK)
    posting = write_off(account_id, booked_at, -picos, TAKEN_BACK)
    await append_credit(connection, posting)
    detail = {"posting_id": str(posting.id), "amount": format_usd(picos)}
    event = AuditEvent("debt.taken_back", f"user:{account_id}", account_id, detail)
    await write_audit(connection, SYSTEM, event)
    _log.info("debt_taken_back", account_id=account_id, amount=format_usd(picos))


class WriteOffStore:
    """Writes off debt, and keeps the limits of it. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def write_off_debts(self) -> list[tuple[str, int]]:
        """Write off what accounts owe beyond their limits; return accounts with amounts."""
        async with acquire(self._pool) as connection:
            await connection.execute(_FORGET_REVERSED_DEBT, ACCOUNTS_AT_ONCE)
            rows = await connection.fetch(_LIST_OVERDRAWN, ACCOUNTS_AT_ONCE)
        written = []
        for row in rows:
            amount_picos = await self._write_off(row["id"])
            if amount_picos:
                written.append((row["id"], amount_picos))
        return written

    async def list_page(self, before: int | None, limit: int) -> list[WriteOff]:
        """Return what was written off, newest first, older than the one with the id `before`."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_WRITE_OFFS, before, limit)
        return [WriteOff(**row) for row in rows]

    async def get_max_debt(self, account_id: str) -> int:
        """Return how far an account may stay below zero, in pico-dollars. Raises NotFound."""
        async with acquire(self._pool) as connection:
            picos: int | None = await connection.fetchval(_GET_MAX_DEBT, account_id)
        if picos is None:
            raise user_not_found(account_id)
        return picos

    async def set_max_debt(self, account_id: str, picos: int, actor: Actor) -> None:
        """Set how far an account may stay below zero. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            before: int | None = await connection.fetchval(_SET_MAX_DEBT, account_id, picos)
            if before is None:
                raise user_not_found(account_id)
            detail = {"max_debt": {"from": format_usd(before), "to": format_usd(picos)}}
            event = AuditEvent("max_debt.set", f"user:{account_id}", account_id, detail)
            await write_audit(connection, actor, event)

    async def _write_off(self, account_id: str) -> int:
        """Write off one account's debt beyond its limit; return the amount, 0 where none is."""
        async with acquire(self._pool) as connection, connection.transaction():
            beyond_picos: int | None = await connection.fetchval(_LOCK_OVERDRAWN, account_id)
            if beyond_picos is None:
                return 0
            booked_at = await connection.fetchval(_READ_CLOCK)
            posting = write_off(account_id, booked_at, beyond_picos)
            await append_credit(connection, posting)
            await connection.execute(_INSERT_WRITE_OFF, posting.id, account_id, beyond_picos)
            detail = {"posting_id": str(posting.id), "amount": format_usd(beyond_picos)}
            event = AuditEvent("debt.written_off", f"user:{account_id}", account_id, detail)
            await write_audit(connection, SYSTEM, event)
        return beyond_picos


class WriteOffs:
    """The work in the background that writes off debt, and says so."""

    def __init__(self, store: WriteOffStore, registry: CollectorRegistry) -> None:
        self._store = store
        self._written_picos = Counter(
            "tollkeeper_written_off_picos",
            "Debt of accounts that the house bore, in pico-dollars.",
            registry=registry,
        )

    async def run(self) -> NoReturn:
        """Look until cancelled, through outages of Postgres."""
        await periodic("write_off", self.look, LOOK_EVERY_S, RETRY_S, (StoreUnavailable,))

    async def look(self) -> None:
        """Write off what accounts owe beyond their limits. Raises StoreUnavailable."""
        for account_id, amount_picos in await self._store.write_off_debts():
            self._written_picos.inc(amount_picos)
            _log.error("debt_written_off", account_id=account_id, amount=format_usd(amount_picos))
