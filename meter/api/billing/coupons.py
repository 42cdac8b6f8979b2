"""Coupons: made, listed and ended by administrators, redeemed by accounts."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.cursors import instant_and_id
from meter.api.fields import (
    Body,
    FutureInstant,
    Instant,
    Like,
    Name,
    Page,
    PageQuery,
    PlanId,
    PositiveAmount,
    Reply,
    Usd,
    path_id,
)
from meter.api.services import FromCoupons, FromCursors
from meter.money import parse_usd
from meter.payments.coupons import NewCoupon

MOST_REDEMPTIONS: Final = 1_000_000
MOST_CREDIT_DAYS: Final = 3_660
MOST_PLANS: Final = 20
_CODE: Final = r"[A-Za-z0-9][A-Za-z0-9 -]{3,62}[A-Za-z0-9]"

router = APIRouter(
    prefix="/api/v1/admin/coupons", tags=["Payments"], dependencies=AdministratorsOnly
)
CouponId = Annotated[
    str, path_id("coupon_id", r"[a-z2-7]{16}", "there is no such coupon", "abcdefghijklmnop")
]
Code = Annotated[
    str,
    Like(
        _CODE,
        "a code has 5 to 64 letters, digits, spaces and hyphens, and begins and ends with one "
        "of the first two",
    ),
    Field(examples=["WELCOME-2026"], description="Capitals, spaces and hyphens do not matter"),
]


class CouponBody(Body):
    """A coupon to make."""

    name: Name
    amount: PositiveAmount
    max_redemptions: int = Field(default=1, ge=1, le=MOST_REDEMPTIONS)
    expires_at: FutureInstant | None = None
    credit_days: int | None = Field(
        default=None,
        ge=1,
        le=MOST_CREDIT_DAYS,
        description="Days after redeeming for which the credit can be used. Left out: it never "
        "expires",
    )
    code: Code | None = Field(default=None, description="Left out: one that nobody can guess")
    plans: Annotated[list[PlanId], Field(min_length=1, max_length=MOST_PLANS)] | None = Field(
        default=None, description="Users of these plans may redeem it. Left out: of every plan"
    )


class RedeemBody(Body):
    """A code to redeem."""

    code: Code


class CouponReply(Reply):
    """A coupon. Its code is shown only when it is made."""

    id: str = Field(examples=["abcdefghijklmnop"])
    name: str
    amount: Usd = Field(validation_alias="amount_picos")
    max_redemptions: int
    redemptions: int
    expires_at: Instant | None
    credit_days: int | None
    plans: list[str] | None = Field(validation_alias="plan_ids")
    ended_at: Instant | None
    created_at: Instant


class NewCouponReply(CouponReply):
    """A new coupon with its code."""

    code: str = Field(examples=["K7WQ2M9XPTHB"])


class CouponPageReply(Page):
    """Coupons, newest first."""

    data: list[CouponReply]


class RedeemedReply(Reply):
    """The credit that a code gave, and the balance right after it."""

    amount: Usd = Field(validation_alias="amount_picos")
    balance: Usd = Field(validation_alias="balance_after_picos")


@router.post("", status_code=201, summary="Make a coupon")
async def create_coupon(
    body: CouponBody, actor: FromAdministrator, coupons: FromCoupons
) -> NewCouponReply:
    """Make a coupon, which each account may redeem once."""
    amount_picos = parse_usd(body.amount)
    new = NewCoupon(
        body.name,
        amount_picos,
        body.max_redemptions,
        body.expires_at,
        body.credit_days,
        body.code,
        body.plans,
    )
    coupon, code = await coupons.create(new, actor)
    made = CouponReply.model_validate(coupon)
    return NewCouponReply.model_construct(**dict(made), code=code)


@router.get("", summary="List coupons")
async def list_coupons(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, coupons: FromCoupons
) -> CouponPageReply:
    """List coupons, newest first; codes are not shown."""
    page, cursor = await cursors.page(
        "coupons",
        query,
        coupons.list_page,
        lambda last: (last.created_at.isoformat(), last.id),
        instant_and_id,
    )
    return CouponPageReply.of(page, cursor)


@router.post("/{coupon_id}/end", summary="End a coupon")
async def end_coupon(
    coupon_id: CouponId, actor: FromAdministrator, coupons: FromCoupons
) -> CouponReply:
    """End a coupon; accounts that redeemed it keep the credit."""
    return CouponReply.model_validate(await coupons.end(coupon_id, actor))
