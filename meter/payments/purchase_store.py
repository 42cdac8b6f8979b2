"""Purchases, customers and the selling terms in Postgres."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.money import format_usd
from meter.payments.purchase import Purchase, PurchaseKind, PurchaseState, SellingTerms
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.payments")
_GET_TERMS: Final = _QUERIES["get_terms"]
_SAVE_TERMS: Final = _QUERIES["save_terms"]
_FIND_CUSTOMER: Final = _QUERIES["find_customer"]
_SAVE_CUSTOMER: Final = _QUERIES["save_customer"]
_INSERT_PURCHASE: Final = _QUERIES["insert_purchase"]
_SET_SESSION: Final = _QUERIES["set_session"]
_FIND_PURCHASE: Final = _QUERIES["find_purchase"]
_FIND_PURCHASE_OF_SESSION: Final = _QUERIES["find_purchase_of_session"]
_END_PURCHASE: Final = _QUERIES["end_purchase"]
_TAKE_OPEN_PURCHASES: Final = _QUERIES["take_open_purchases"]
_LIST_PURCHASES: Final = _QUERIES["list_purchases"]


class PurchaseStore:
    """Keeps purchases and the terms of selling. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def get_terms(self) -> SellingTerms:
        """Return the terms under which credit is sold."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_GET_TERMS)
        assert row is not None
        return from_row(SellingTerms, row)

    async def set_terms(self, terms: SellingTerms, actor: Actor) -> None:
        """Replace the terms under which credit is sold."""
        values = (
            terms.least_picos,
            terms.most_picos,
            terms.is_taxed,
            terms.takes_promotion_codes,
            terms.makes_invoices,
            terms.credit_days,
        )
        async with acquire(self._pool) as connection, connection.transaction():
            before = await connection.fetchrow(_SAVE_TERMS, *values)
            assert before is not None
            detail = changes_between(_to_detail(from_row(SellingTerms, before)), _to_detail(terms))
            if detail:
                await write_audit(
                    connection, actor, AuditEvent("selling.changed", "selling", None, detail)
                )

    async def find_customer(self, account_id: str, is_live: bool) -> tuple[str, str | None]:
        """Return the account's email, and its customer at Stripe, None before it has one.

        Raises NotFound for an unknown account.
        """
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_CUSTOMER, account_id, is_live)
        if row is None:
            raise user_not_found(account_id)
        return row["email"], row["customer_id"]

    async def save_customer(
        self, account_id: str, is_live: bool, customer_id: str, gone: str | None
    ) -> str:
        """Return the customer that stands for an account: one stored before, else this one.

        `gone` is a stored one that no longer exists at Stripe.
        """
        async with acquire(self._pool) as connection:
            stored: str = await connection.fetchval(
                _SAVE_CUSTOMER, account_id, is_live, customer_id, gone
            )
        return stored

    async def open_purchase(
        self,
        purchase_id: UUID,
        account_id: str,
        kind: PurchaseKind,
        is_live: bool,
        amount_picos: int,
        saves_card: bool,
        actor: Actor,
    ) -> Purchase:
        """Write an intention to buy, before Stripe is asked for anything."""
        values = (purchase_id, account_id, kind.value, is_live, amount_picos, saves_card)
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_INSERT_PURCHASE, *values)
            assert row is not None
            detail = {"purchase_id": str(purchase_id), "amount": format_usd(amount_picos)}
            event = AuditEvent("purchase.opened", f"user:{account_id}", account_id, detail)
            await write_audit(connection, actor, event)
        return read_purchase(row)

    async def set_session(self, purchase_id: UUID, session_id: str) -> None:
        """Note the Checkout session of a purchase."""
        async with acquire(self._pool) as connection:
            await connection.execute(_SET_SESSION, purchase_id, session_id)

    async def find(self, purchase_id: UUID) -> Purchase | None:
        """Return a purchase; None where there is no such one."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_PURCHASE, purchase_id)
        return None if row is None else read_purchase(row)

    async def find_of_session(self, session_id: str) -> Purchase | None:
        """Return the purchase of a Checkout session; None where it is not ours."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_PURCHASE_OF_SESSION, session_id)
        return None if row is None else read_purchase(row)

    async def end(
        self,
        purchase_id: UUID,
        state: PurchaseState,
        reason: str | None = None,
        *,
        has_failed: bool = False,
    ) -> bool:
        """End a purchase; return whether this ended it now. A paid one stays paid.

        Webhooks of the account are told of a payment that has failed.
        """
        async with acquire(self._pool) as connection:
            ended = await connection.fetchval(
                _END_PURCHASE, purchase_id, state.value, reason, has_failed
            )
        return ended is not None

    async def take_open(self, is_live: bool, unseen_for: timedelta, limit: int) -> list[Purchase]:
        """Return open purchases that nobody looked at for so long; they count as looked at now."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_TAKE_OPEN_PURCHASES, is_live, unseen_for, limit)
        return [read_purchase(row) for row in rows]

    async def list_page(
        self, account_id: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Purchase]:
        """Return purchases, newest first, older than the one at `before`."""
        created_at, purchase_id = before or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_PURCHASES, account_id, created_at, purchase_id, limit
            )
        return [read_purchase(row) for row in rows]


def read_purchase(row: "Record") -> Purchase:
    """Return the purchase of a row."""
    return from_row(
        Purchase, row, kind=PurchaseKind(row["kind"]), state=PurchaseState(row["state"])
    )


def _to_detail(terms: SellingTerms) -> dict[str, object]:
    return {
        "least": format_usd(terms.least_picos),
        "most": format_usd(terms.most_picos),
        "is_taxed": terms.is_taxed,
        "takes_promotion_codes": terms.takes_promotion_codes,
        "makes_invoices": terms.makes_invoices,
        "credit_days": terms.credit_days,
    }
