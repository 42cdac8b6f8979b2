"""Coupons: codes that give credit, once for each account."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import asyncpg

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, NotFound, NotPermitted, UnknownReference
from meter.identity.keys.key_text import Pepper
from meter.ledger.credit import IdempotencyKeyReused
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import coupon_credit
from meter.ledger.statement import CreditPosted
from meter.money import format_usd
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.payments")
_INSERT_COUPON: Final = _QUERIES["insert_coupon"]
_LIST_COUPONS: Final = _QUERIES["list_coupons"]
_FIND_COUPON: Final = _QUERIES["find_coupon"]
_FIND_REDEMPTION: Final = _QUERIES["find_redemption"]
_FIND_MISSING_PLAN: Final = _QUERIES["find_missing_plan"]
_COUNT_REDEMPTION: Final = _QUERIES["count_redemption"]
_INSERT_REDEMPTION: Final = _QUERIES["insert_redemption"]
_END_COUPON: Final = _QUERIES["end_coupon"]
_COUNT_ATTEMPT: Final = _QUERIES["count_attempt"]
_READ_CLOCK: Final = queries("meter.ledger")["read_clock"]

# Without the letters and digits that people confuse.
CODE_ALPHABET: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
CODE_CHARS: Final = 12
_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ID_CHARS: Final = 16
# At this pace, guessing a code that was made here takes billions of years.
MOST_ATTEMPTS: Final = 10
ATTEMPT_WINDOW: Final = timedelta(hours=1)


class CouponNotValid(NotFound):
    """A code that does not exist, has expired, has ended, or is used up; nobody learns which."""


class CouponRedeemed(Conflict):
    """A code that the account has redeemed before."""


class CouponOfOtherPlan(Conflict):
    """A code for the accounts of other plans."""


class CouponExists(Conflict):
    """A code that a coupon has already."""


class TooManyAttempts(NotPermitted):
    """More codes than an account may try in an hour."""


@dataclass(frozen=True, slots=True)
class Coupon:
    """A coupon, without its code.

    Its credit expires `credit_days` after it was redeemed; None is never. Accounts of the plans in
    `plan_ids` may redeem it; None: of every plan.
    """

    id: str
    name: str
    amount_picos: int
    max_redemptions: int
    redemptions: int
    expires_at: datetime | None
    credit_days: int | None
    plan_ids: list[str] | None
    ended_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewCoupon:
    """A coupon to be made. Without a code, one that nobody can guess is made."""

    name: str
    amount_picos: int
    max_redemptions: int
    expires_at: datetime | None = None
    credit_days: int | None = None
    code: str | None = None
    plan_ids: list[str] | None = None


class Coupons:
    """Makes, lists, ends and redeems coupons. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool, pepper: Pepper) -> None:
        self._pool = pool
        self._pepper = pepper
        self._ledger = LedgerStore(pool)

    async def create(self, new: NewCoupon, actor: Actor) -> tuple[Coupon, str]:
        """Make a coupon; return it with its code, which is shown this once.

        Raises CouponExists for a code that is taken, UnknownReference for a plan that is not there.
        """
        code = new.code or "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_CHARS))
        coupon_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
        async with acquire(self._pool) as connection, connection.transaction():
            missing = await connection.fetchval(_FIND_MISSING_PLAN, new.plan_ids or [])
            if missing is not None:
                raise UnknownReference(f"there is no plan '{missing}'")
            try:
                row = await connection.fetchrow(
                    _INSERT_COUPON,
                    coupon_id,
                    new.name,
                    self._digest(code),
                    new.amount_picos,
                    new.max_redemptions,
                    new.expires_at,
                    new.credit_days,
                    new.plan_ids,
                )
            except asyncpg.UniqueViolationError:
                raise CouponExists("a coupon with this code exists already") from None
            assert row is not None
            detail = {"name": new.name, "amount": format_usd(new.amount_picos)}
            event = AuditEvent("coupon.created", f"coupon:{coupon_id}", None, detail)
            await write_audit(connection, actor, event)
        return _coupon(row), code

    async def list_page(self, before: tuple[datetime, str] | None, limit: int) -> list[Coupon]:
        """Return coupons, newest first, older than the one at `before`."""
        created_at, coupon_id = before or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_COUPONS, created_at, coupon_id, limit)
        return [_coupon(row) for row in rows]

    async def end(self, coupon_id: str, actor: Actor) -> Coupon:
        """End a coupon; the credit of those who redeemed it stays. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_END_COUPON, coupon_id)
            if row is None:
                raise NotFound(f"there is no coupon '{coupon_id}'")
            await write_audit(connection, actor, AuditEvent("coupon.ended", f"coupon:{coupon_id}"))
        return _coupon(row)

    async def redeem(self, account_id: str, code: str, actor: Actor) -> CreditPosted:
        """Give the credit of a code to an account, once.

        Raises TooManyAttempts, CouponNotValid, CouponRedeemed, and CouponOfOtherPlan.
        """
        async with acquire(self._pool) as connection:
            attempts = await connection.fetchval(_COUNT_ATTEMPT, account_id, ATTEMPT_WINDOW)
            if attempts > MOST_ATTEMPTS:
                raise TooManyAttempts(
                    f"{MOST_ATTEMPTS} codes may be tried in an hour; try again later"
                )
            digest = self._digest(code)
            if await connection.fetchval(_FIND_REDEMPTION, digest, account_id):
                raise _redeemed()
            row = await connection.fetchrow(_FIND_COUPON, digest, account_id)
            now = await connection.fetchval(_READ_CLOCK)
        if row is None:
            raise _not_valid()
        coupon = _coupon(row)
        if not row["is_for_plan"]:
            raise CouponOfOtherPlan(f"this code is for users of {', '.join(coupon.plan_ids or ())}")
        expires_at = None
        if coupon.credit_days is not None:
            expires_at = now + timedelta(days=coupon.credit_days)
        posting = coupon_credit(account_id, coupon.id, coupon.amount_picos, coupon.name, expires_at)

        async def record(connection: PostgresConnection) -> None:
            # In the posting's transaction: what has ended meanwhile takes the posting with it.
            if await connection.fetchval(_COUNT_REDEMPTION, coupon.id, account_id) is None:
                raise _not_valid()
            await connection.execute(_INSERT_REDEMPTION, coupon.id, account_id, posting.id)

        try:
            posted = await self._ledger.post_credit(posting, actor, also=record)
        except IdempotencyKeyReused:
            # Another call of this moment was first, with another instant of expiry.
            raise _redeemed() from None
        if posted.was_replayed:
            raise _redeemed()
        return posted

    def _digest(self, code: str) -> bytes:
        # No API key begins like this, so the digest of a code is never that of a key.
        return self._pepper.digest(f"coupon:{''.join(code.split()).replace('-', '').upper()}")


def _redeemed() -> CouponRedeemed:
    return CouponRedeemed("this account has redeemed the code before")


def _not_valid() -> CouponNotValid:
    return CouponNotValid("this code is not valid, or not any more")


def _coupon(row: "Record") -> Coupon:
    return from_row(Coupon, row)
