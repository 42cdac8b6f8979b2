"""Lots of credit that expires, and the work in the background that takes what has expired.

Spending takes the earliest expiry first, in the statements that settle: see the migration of
`credit_lots`. Credit that has expired is not available to new holds from that instant on, whether
or not this work has run. A hold that was placed before may still use it: as much stays until the
hold has ended.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.audit.audit_store import write_audit
from meter.audit.events import SYSTEM, AuditEvent
from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.ledger.credit_store import append_credit
from meter.ledger.postings import expiry
from meter.money import format_usd
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.process.periodic import periodic

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.ledger")
_LIST_LOTS: Final = _QUERIES["list_lots"]
_LIST_DUE_ACCOUNTS: Final = _QUERIES["list_due_accounts"]
_LOCK_DUE_ACCOUNT: Final = _QUERIES["lock_due_account"]
_LIST_EXPIRABLE: Final = _QUERIES["list_expirable"]
_EXPIRE_LOT: Final = _QUERIES["expire_lot"]
_FIND_OLDEST_EXPIRY: Final = _QUERIES["find_oldest_expiry"]
_READ_CLOCK: Final = _QUERIES["read_clock"]

LOOK_EVERY_S: Final = 10.0
RETRY_S: Final = 5.0
ACCOUNTS_AT_ONCE: Final = 200
# While more accounts are due, the next ones follow after this pause.
NEXT_ACCOUNTS_AFTER_S: Final = 0.1
# Holds end long before: what is due for longer is not taken.
LATE_AFTER: Final = timedelta(hours=1)
# The lots of an account that are shown.
LOTS_SHOWN: Final = 100
_REASON_CHARS: Final = 500

_log = structlog.get_logger(__name__)

DueAccount = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Lot:
    """Credit that one posting gave and that expires. `reason` is that of the posting."""

    id: UUID
    amount_picos: int
    remaining_picos: int
    granted_at: datetime
    expires_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class OpenLots:
    """The lots of an account with something left, LOTS_SHOWN at most, and the sum over all."""

    lots: tuple[Lot, ...]
    expiring_picos: int


class LotStore:
    """Lists lots, and takes what has expired. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def get_open(self, account_id: str) -> OpenLots:
        """Return the lots of an account with something left, the earliest expiry first.

        A lot that has expired is among them for as long as an open hold may use it.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_LOTS, account_id, LOTS_SHOWN)
        expiring_picos = int(rows[0]["expiring_picos"]) if rows else 0
        return OpenLots(tuple(from_row(Lot, row) for row in rows), expiring_picos)

    async def list_due(
        self, now: datetime, after: DueAccount | None, limit: int
    ) -> list[DueAccount]:
        """Return accounts with credit that expired by `now`, the earliest first."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_DUE_ACCOUNTS, now, *(after or (None, None)), limit)
        return [(row["next_expiry"], row["id"]) for row in rows]

    async def expire(self, account_id: str, now: datetime) -> int:
        """Take what of an account expired by `now` and no hold may still use; return the amount.

        0 where another transaction keeps the account locked: a later call takes it.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            funds = await connection.fetchrow(_LOCK_DUE_ACCOUNT, account_id, now)
            if funds is None:
                return 0
            # An excess may have used what other holds set aside: they keep it until they end.
            free_picos = max(0, funds["balance_picos"] - funds["held_picos"])
            total_picos = 0
            for row in await connection.fetch(_LIST_EXPIRABLE, account_id, now):
                amount_picos = min(row["expirable_picos"], free_picos - total_picos)
                if amount_picos <= 0:
                    break
                await _expire_lot(connection, account_id, row, amount_picos)
                total_picos += amount_picos
        return total_picos

    async def find_oldest_due(self, now: datetime) -> datetime | None:
        """Return the earliest expiry of credit that is still to be taken; None without any."""
        async with acquire(self._pool) as connection:
            oldest: datetime | None = await connection.fetchval(_FIND_OLDEST_EXPIRY, now)
        return oldest


async def _expire_lot(
    connection: PostgresConnection, account_id: str, lot: "Record", amount_picos: int
) -> None:
    posting = expiry(
        account_id,
        lot["lot_id"],
        lot["expired_picos"],
        amount_picos,
        f"expired: {lot['reason']}"[:_REASON_CHARS],
    )
    posting = replace(posting, booked_at=await connection.fetchval(_READ_CLOCK))
    await append_credit(connection, posting)
    await connection.execute(_EXPIRE_LOT, lot["lot_id"], amount_picos, posting.id)
    detail = {
        "posting_id": str(posting.id),
        "lot_id": str(lot["lot_id"]),
        "amount": format_usd(amount_picos),
    }
    event = AuditEvent("credit.expired", f"user:{account_id}", account_id, detail)
    await write_audit(connection, SYSTEM, event)


class CreditExpiry:
    """The work in the background that takes expired credit, and says so."""

    def __init__(self, store: LotStore, clock: Clock, registry: CollectorRegistry) -> None:
        self._store = store
        self._clock = clock
        self._after: DueAccount | None = None
        self._is_late = False
        self._expired_picos = Counter(
            "tollkeeper_expired_credit_picos",
            "Credit that expired before it was spent, in pico-dollars.",
            registry=registry,
        )
        self._oldest_s = Gauge(
            "tollkeeper_oldest_expired_credit_seconds",
            "Age of the earliest expiry whose credit is still to be taken; 0 without any.",
            registry=registry,
        )

    async def run(self) -> NoReturn:
        """Look until cancelled, through outages of Postgres."""
        await periodic("credit_expiry", self.look, LOOK_EVERY_S, RETRY_S, (StoreUnavailable,))

    async def look(self) -> float | None:
        """Take what has expired, of a bounded number of accounts; return the pause until the next.

        Each call continues after the accounts of the one before: those whose holds still run do not
        keep others waiting. Raises StoreUnavailable.
        """
        now = self._clock.now()
        due = await self._store.list_due(now, self._after, ACCOUNTS_AT_ONCE)
        for _, account_id in due:
            amount_picos = await self._store.expire(account_id, now)
            if amount_picos:
                self._expired_picos.inc(amount_picos)
                _log.info("credit_expired", account_id=account_id, amount=format_usd(amount_picos))
        if len(due) == ACCOUNTS_AT_ONCE:
            self._after = due[-1]
            return NEXT_ACCOUNTS_AFTER_S
        self._after = None
        self._watch(now, await self._store.find_oldest_due(now))
        return None

    def _watch(self, now: datetime, oldest: datetime | None) -> None:
        age = timedelta() if oldest is None else now - oldest
        self._oldest_s.set(age.total_seconds())
        if age > LATE_AFTER and not self._is_late:
            _log.error("credit_expiry_late", since=oldest, age_s=round(age.total_seconds()))
        self._is_late = age > LATE_AFTER
