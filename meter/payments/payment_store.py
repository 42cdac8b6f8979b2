"""Payments and their reversals in Postgres, each row committed together with its posting."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from meter.errors import NotFound
from meter.ledger.credit import IdempotencyKeyReused
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import payment, payment_reversal
from meter.payments.purchase import Payment, Purchase
from meter.payments.stripe_facts import PaymentFacts
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.payments")
_INSERT_PAYMENT: Final = _QUERIES["insert_payment"]
_FIND_PAYMENT: Final = _QUERIES["find_payment"]
_LIST_PAYMENTS: Final = _QUERIES["list_payments"]
_INSERT_REVERSAL: Final = _QUERIES["insert_reversal"]
_LIST_REVERSALS: Final = _QUERIES["list_reversals"]
_READ_CLOCK: Final = queries("meter.ledger")["read_clock"]


class ReversalKind(StrEnum):
    """The kinds of reversals, with whether credit is taken or given back."""

    REFUND = "refund"
    REFUND_FAILED = "refund_failed"
    DISPUTE_WITHDRAWN = "dispute_withdrawn"
    DISPUTE_REINSTATED = "dispute_reinstated"

    @property
    def sign(self) -> int:
        """Return -1 where credit is taken back from the customer, 1 where it is given back."""
        return -1 if self in (ReversalKind.REFUND, ReversalKind.DISPUTE_WITHDRAWN) else 1


@dataclass(frozen=True, slots=True)
class Reversal:
    """A movement that took credit of a payment back (negative), or gave it back again."""

    cause: str
    kind: str
    cents: int
    amount_picos: int
    recorded_at: datetime


class PaymentStore:
    """Posts payments and what reverses them, once each. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._ledger = LedgerStore(pool)

    async def credit(self, purchase: Purchase, facts: PaymentFacts, credited_picos: int) -> bool:
        """Turn a payment into credit; return whether this call did it."""
        posting = payment(purchase.account_id, facts.id, credited_picos)
        if purchase.credit_days is not None:
            expires_at = facts.paid_at + timedelta(days=purchase.credit_days)
            async with acquire(self._pool) as connection:
                now = await connection.fetchval(_READ_CLOCK)
            # Credit that comes so late that nobody could use it does not expire.
            posting = replace(posting, expires_at=expires_at if expires_at > now else None)

        async def record(connection: PostgresConnection) -> None:
            await connection.execute(
                _INSERT_PAYMENT,
                facts.id,
                purchase.id,
                purchase.account_id,
                facts.is_live,
                facts.received_cents,
                credited_picos,
                posting.id,
                facts.receipt_url,
                facts.paid_at,
            )

        try:
            posted = await self._ledger.post_credit(posting, also=record)
        except IdempotencyKeyReused:
            # Followed again after its expiry, the posting would have none.
            found = await self.find(facts.id)
            if found is None or found.credited_picos != credited_picos:
                raise
            return False
        return not posted.was_replayed

    async def reverse(self, paid: Payment, kind: ReversalKind, object_id: str, cents: int) -> int:
        """Take credit of a payment back, or give it back; return by how much this call did.

        The id of the refund or dispute and the kind are the cause, so each is posted once.
        """
        if not cents:
            return 0
        amount_picos = kind.sign * paid.share_of(cents)
        cause = f"{object_id}:{kind.value}"
        reason = f"{kind.value.replace('_', ' ')}: {object_id} of payment {paid.id}"
        columns = (cause, paid.id, paid.account_id, kind.value, cents, amount_picos)
        if not amount_picos:
            async with acquire(self._pool) as connection:
                await connection.execute(_INSERT_REVERSAL, *columns, None)
            return 0
        posting = payment_reversal(paid.account_id, cause, amount_picos, reason)

        async def record(connection: PostgresConnection) -> None:
            await connection.execute(_INSERT_REVERSAL, *columns, posting.id)

        posted = await self._ledger.post_credit(posting, also=record)
        return 0 if posted.was_replayed else amount_picos

    async def find(self, payment_id: str) -> Payment | None:
        """Return a payment; None where there is no such one."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_PAYMENT, payment_id)
        return None if row is None else from_row(Payment, row)

    async def get(self, payment_id: str) -> Payment:
        """Return a payment. Raises NotFound."""
        found = await self.find(payment_id)
        if found is None:
            raise NotFound(f"there is no payment '{payment_id}'")
        return found

    async def list_page(
        self, account_id: str | None, before: int | None, limit: int
    ) -> list[Payment]:
        """Return payments, newest first, older than the row `before`."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PAYMENTS, account_id, before, limit)
        return [from_row(Payment, row) for row in rows]

    async def list_reversals(self, payment_id: str) -> list[Reversal]:
        """Return what took credit of a payment back, in order."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_REVERSALS, payment_id)
        return [from_row(Reversal, row) for row in rows]
