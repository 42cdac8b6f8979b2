"""The ledger in Postgres: postings of credit, and what an account sees of them."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import asyncpg

from meter.accounts.account import Funds
from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import SYSTEM, Actor, AuditEvent
from meter.ledger.append import write_postings
from meter.ledger.credit import check_credit, check_expiry, check_replay
from meter.ledger.postings import Posting, Template
from meter.ledger.statement import CreditPosted, RequestFacts, Transaction
from meter.money import format_usd
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.ledger")
_READ_CLOCK: Final = _QUERIES["read_clock"]
_FIND_POSTING: Final = _QUERIES["find_posting"]
_LIST_TRANSACTIONS: Final = _QUERIES["list_transactions"]
_LOCK_ACCOUNT_FUNDS: Final = queries("meter.accounts")["lock_account_funds"]
_MOVE_BALANCE: Final = _QUERIES["move_balance"]
_INSERT_CREDIT_POSTING: Final = _QUERIES["insert_credit_posting"]
_ADD_LOT: Final = _QUERIES["add_lot"]
_TAKE_FROM_LOTS: Final = _QUERIES["take_from_lots"]
_CLOSE_LOTS: Final = _QUERIES["close_lots"]

AlsoWrite = Callable[[PostgresConnection], Awaitable[object]]


class LedgerStore:
    """Posts credit and lists transactions. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def post_credit(
        self, posting: Posting, actor: Actor = SYSTEM, also: AlsoWrite | None = None
    ) -> CreditPosted:
        """Post a credit, adjustment or payment once, however often it is asked for.

        `also` writes rows of the caller that are committed with the posting, or not at all; it is
        not called for a posting that exists already.
        Raises NotFound for an unknown account, and what `meter.ledger.credit` raises: the account's
        row is locked before, so the check and the posting see the same funds.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_ACCOUNT_FUNDS, posting.account_id)
            if row is None:
                raise user_not_found(posting.account_id)
            funds = Funds(row["balance_picos"], row["held_picos"])
            posting = replace(posting, booked_at=await connection.fetchval(_READ_CLOCK))
            before = await connection.fetchrow(_FIND_POSTING, posting.id)
            if before is not None:
                check_replay(
                    posting, int(before["amount_picos"]), before["reason"], before["expires_at"]
                )
                return _credit_posted(posting, before, was_replayed=True)
            check_expiry(posting)
            check_credit(posting, funds)
            posted = await append_credit(connection, posting)
            if also is not None:
                await also(connection)
            detail = {
                "posting_id": str(posting.id),
                "type": posting.template.value,
                "amount": format_usd(posting.customer_picos),
                "reason": posting.reason,
            }
            if posting.expires_at is not None:
                detail["expires_at"] = posting.expires_at.isoformat()
            target = f"user:{posting.account_id}"
            event = AuditEvent("credit.posted", target, posting.account_id, detail)
            await write_audit(connection, actor, event)
            return posted

    async def list_transactions(
        self, account_id: str, before: int | None, limit: int
    ) -> list[Transaction]:
        """The account's postings, newest first, older than the position `before`."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_TRANSACTIONS, account_id, before, limit)
        return [_transaction(row) for row in rows]


async def append_credit(connection: PostgresConnection, posting: Posting) -> CreditPosted:
    """Write a posting that no request caused, and move the balance; the account is locked.

    Credit with an expiry becomes a lot. What is taken comes from lots, the earliest expiry first; a
    reversed payment takes first the credit that never expires, since that was bought. What expires
    is of one lot, which the caller changes.
    """
    await write_postings(connection, [posting])
    is_reversal = posting.template is Template.PAYMENT_REVERSAL
    moved = await connection.fetchrow(
        _MOVE_BALANCE, posting.account_id, posting.customer_picos, is_reversal
    )
    assert moved is not None
    if posting.expires_at is not None:
        await connection.execute(
            _ADD_LOT,
            posting.id,
            posting.account_id,
            posting.customer_picos,
            posting.booked_at,
            posting.expires_at,
        )
    elif (
        posting.customer_picos < 0
        and moved["next_expiry"] is not None
        and posting.template is not Template.EXPIRY
    ):
        if not is_reversal:
            await connection.execute(
                _TAKE_FROM_LOTS, posting.account_id, moved["next_expiry"], -posting.customer_picos
            )
        await connection.execute(_CLOSE_LOTS, posting.account_id)
    row = await connection.fetchrow(
        _INSERT_CREDIT_POSTING,
        posting.id,
        posting.booked_at,
        posting.template.value,
        posting.reason or "",
        posting.customer_picos,
        moved["balance_picos"],
    )
    assert row is not None
    return _credit_posted(posting, row, was_replayed=False)


def _credit_posted(posting: Posting, row: asyncpg.Record, was_replayed: bool) -> CreditPosted:
    return CreditPosted(
        id=posting.id,
        template=row["template"],
        amount_picos=posting.customer_picos,
        reason=row["reason"],
        recorded_at=row["booked_at"],
        balance_after_picos=int(row["balance_after_picos"]),
        was_replayed=was_replayed,
        expires_at=posting.expires_at,
    )


def _transaction(row: asyncpg.Record) -> Transaction:
    request = None if row["model_id"] is None else from_row(RequestFacts, row)
    amount_picos = int(row["amount_picos"])
    return from_row(
        Transaction, row, position=row["seq"], amount_picos=amount_picos, request=request
    )
