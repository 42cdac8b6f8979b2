"""Subscriptions, their paid invoices and the prices of plans in Postgres."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from meter.accounts.account_store import user_not_found
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import Posting, credit, payment
from meter.payments.purchase import Purchase
from meter.payments.subscriptions.facts import SubscriptionFacts, SubscriptionInvoice
from meter.plans.plan import PlanPrice, PlanVersion
from meter.plans.plan_store import read_version
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.payments.subscriptions")
_SAVE: Final = _QUERIES["save_subscription"]
_READ_CLOCK: Final = _QUERIES["read_clock"]
_LOCK_ACCOUNT: Final = _QUERIES["lock_account"]
_FIND_VERSION: Final = _QUERIES["find_version"]
_FIND_PRICE: Final = _QUERIES["find_price"]
_SAVE_PRICE: Final = _QUERIES["save_price"]
_INSERT_INVOICE: Final = _QUERIES["insert_invoice"]
_FIND_INVOICE: Final = _QUERIES["find_invoice"]
_GIVE_TERMS: Final = _QUERIES["give_terms"]
_DROP_TERMS: Final = _QUERIES["drop_terms"]
_LIST_OVERDUE: Final = _QUERIES["list_overdue"]
_FIND_SUBSCRIPTION: Final = _QUERIES["find_subscription"]
_HAS_SUBSCRIBED: Final = _QUERIES["has_subscribed"]
_LIST_SUBSCRIPTIONS: Final = _QUERIES["list_subscriptions"]
# Credit that is recorded so shortly before the end of its period, or later, does not expire.
LEAST_USE: Final = timedelta(hours=1)
_INSERT_PAYMENT: Final = queries("meter.payments")["insert_payment"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription of an account.

    `plan_id` and `plan_version` are the terms of the newest invoice that was paid, which are paid
    until `paid_until`; None before the first. `has_terms` says whether the account has them now.
    """

    id: str
    account_id: str
    is_live: bool
    status: str
    price_id: str
    period_start: datetime
    period_end: datetime
    cancels_at: datetime | None
    ended_at: datetime | None
    plan_id: str | None
    plan_version: int | None
    paid_until: datetime | None
    has_terms: bool
    created_at: datetime
    is_paused: bool


@dataclass(frozen=True, slots=True)
class PaidPeriod:
    """The terms and the credit that a paid invoice gives, until the end of its period."""

    version: PlanVersion
    credited_picos: int
    ends_at: datetime


class SubscriptionStore:
    """Keeps subscriptions, and posts the credit of their periods. Raises StoreUnavailable."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._ledger = LedgerStore(pool)

    async def now(self) -> datetime:
        """Return the time by which answers of Stripe are put in order: read it before asking."""
        async with acquire(self._pool) as connection:
            now: datetime = await connection.fetchval(_READ_CLOCK)
        return now

    async def save(self, purchase: Purchase, facts: SubscriptionFacts, asked_at: datetime) -> None:
        """Store a subscription as Stripe has it, unless a later answer is stored."""
        async with acquire(self._pool) as connection:
            await connection.execute(
                _SAVE,
                facts.id,
                purchase.id,
                purchase.account_id,
                facts.is_live,
                facts.status,
                facts.price_id,
                facts.period_start,
                facts.period_end,
                facts.cancels_at,
                facts.ended_at,
                asked_at,
                facts.is_paused,
            )

    async def is_recorded(self, invoice_id: str) -> bool:
        """Return whether a paid invoice is recorded, with all that follows from it."""
        async with acquire(self._pool) as connection:
            return bool(await connection.fetchval(_FIND_INVOICE, invoice_id))

    async def record(
        self, purchase: Purchase, invoice: SubscriptionInvoice, period: PaidPeriod
    ) -> bool:
        """Post the credit of a paid invoice and give the account its terms; return whether now.

        All of it is committed together, once for each invoice.
        """
        is_recorded = False

        async def write(connection: PostgresConnection, posting: Posting | None = None) -> None:
            nonlocal is_recorded
            is_recorded = await _record(connection, purchase, invoice, period, posting)

        if period.credited_picos:
            posting = period_credit(purchase.account_id, invoice, period, await self.now())
            await self._ledger.post_credit(posting, also=lambda one: write(one, posting))
        else:
            async with acquire(self._pool) as connection, connection.transaction():
                await connection.execute(_LOCK_ACCOUNT, purchase.account_id)
                await write(connection)
        return is_recorded

    async def drop_terms(
        self, subscription_id: str, account_id: str, now: datetime, grace: timedelta
    ) -> str | None:
        """Give an account the plan of before, if the subscription is over or unpaid for too long.

        Returns that plan; None where the account keeps its terms.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchval(_LOCK_ACCOUNT, account_id) is None:
                raise user_not_found(account_id)
            plan_id: str | None = await connection.fetchval(
                _DROP_TERMS, subscription_id, now, grace
            )
        return plan_id

    async def list_overdue(self, is_live: bool, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Return subscriptions, with their accounts, whose paid period is over."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_OVERDUE, is_live, now, limit)
        return [(row["id"], row["account_id"]) for row in rows]

    async def find(self, account_id: str, is_live: bool) -> Subscription | None:
        """Return the subscription of an account that has not ended; None where it has none."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_SUBSCRIPTION, account_id, is_live)
        return None if row is None else from_row(Subscription, row)

    async def has_subscribed(self, account_id: str) -> bool:
        """Return whether an account ever had a subscription, and so its trial."""
        async with acquire(self._pool) as connection:
            return bool(await connection.fetchval(_HAS_SUBSCRIBED, account_id))

    async def list_page(
        self, account_id: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Subscription]:
        """Return subscriptions, newest first, older than the one at `before`."""
        created_at, subscription_id = before or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_SUBSCRIPTIONS, account_id, created_at, subscription_id, limit
            )
        return [from_row(Subscription, row) for row in rows]

    async def find_version(self, price_id: str, is_live: bool) -> PlanVersion | None:
        """Return the newest terms of a plan at a price of Stripe; None for an unknown price."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_VERSION, price_id, is_live)
        return None if row is None else read_version(row)

    async def find_price(self, plan_id: str, price: PlanPrice, is_live: bool) -> str | None:
        """Return the id of a plan's price at Stripe; None before `plans sync` made it."""
        async with acquire(self._pool) as connection:
            found: str | None = await connection.fetchval(
                _FIND_PRICE, plan_id, is_live, price.amount_picos, price.period.value
            )
        return found

    async def save_price(
        self, price_id: str, plan_id: str, price: PlanPrice, is_live: bool
    ) -> None:
        """Remember which plan a price at Stripe belongs to."""
        async with acquire(self._pool) as connection:
            await connection.execute(
                _SAVE_PRICE, price_id, is_live, plan_id, price.amount_picos, price.period.value
            )


def period_credit(
    account_id: str, invoice: SubscriptionInvoice, period: PaidPeriod, now: datetime
) -> Posting:
    """Return the posting of the credit of a period, which adds to the balance.

    The payment of the invoice is its cause, so that refunds and disputes take their share of it
    back; a period that was free, as a trial is, has the invoice as its cause. It expires
    with the period, unless the period is over before it could be used.
    """
    expires_at = period.ends_at if period.ends_at > now + LEAST_USE else None
    if invoice.payment_id is not None:
        posting = payment(account_id, invoice.payment_id, period.credited_picos)
        return replace(posting, expires_at=expires_at)
    reason = f"credit of the plan {period.version.name}: {invoice.id}"
    return credit(account_id, f"plan:{invoice.id}", period.credited_picos, reason, expires_at)


async def _record(
    connection: PostgresConnection,
    purchase: Purchase,
    invoice: SubscriptionInvoice,
    period: PaidPeriod,
    posting: Posting | None,
) -> bool:
    """Write the rows of a paid invoice; return whether it was not recorded before."""
    account_id, version = purchase.account_id, period.version
    new = await connection.fetchval(
        _INSERT_INVOICE,
        invoice.id,
        invoice.subscription_id,
        account_id,
        version.id,
        version.version,
        invoice.paid_cents,
        period.credited_picos,
        None if posting is None else posting.id,
        period.ends_at,
        invoice.paid_at,
    )
    if new is None:
        return False
    if invoice.payment_id is not None:
        await connection.execute(
            _INSERT_PAYMENT,
            invoice.payment_id,
            purchase.id,
            account_id,
            invoice.is_live,
            invoice.paid_cents,
            period.credited_picos,
            None if posting is None else posting.id,
            invoice.page_url,
            invoice.paid_at,
        )
    await connection.execute(
        _GIVE_TERMS,
        invoice.subscription_id,
        version.id,
        version.version,
        invoice.created_at,
        period.ends_at,
    )
    return True
