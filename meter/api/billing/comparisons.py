"""Comparisons of Stripe's balance with the postings of payments, day by day."""

from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AliasPath, BeforeValidator, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.billing.replies import FromPayments
from meter.api.fields import Body, Instant, Like, Page, PageQuery, Reply
from meter.api.problems import ProblemError
from meter.api.services import FromAudit, FromCursors, FromStripeComparisons
from meter.audit.events import AuditEvent

_DAY: Final = r"20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"

router = APIRouter(
    prefix="/api/v1/admin/stripe-comparisons", tags=["Payments"], dependencies=AdministratorsOnly
)
Cents = Annotated[
    str,
    BeforeValidator(lambda cents: _decimal(cents) if isinstance(cents, int) else cents),
    Field(description="A decimal string with two decimals", examples=["25.00"]),
]


class DayBody(Body):
    """A day to compare."""

    day: Annotated[
        str,
        Like(_DAY, "a day is written as 2026-11-29, and is a day of UTC"),
        Field(examples=["2026-11-29"]),
    ]


class ComparedKindReply(Reply):
    """Movements of one kind at Stripe and in the books, in US dollars."""

    kind: str = Field(examples=["charge", "refund", "dispute_withdrawn"])
    stripe_count: int
    stripe: Cents = Field(validation_alias="stripe_cents")
    booked_count: int
    booked: Cents = Field(validation_alias="booked_cents")


class FeesReply(Reply):
    """The fees that Stripe kept, in one currency."""

    currency: str = Field(examples=["usd"])
    amount: Cents = Field(validation_alias="cents")


class OtherMovementsReply(Reply):
    """Movements at Stripe that no posting stands for, such as payouts."""

    category: str = Field(examples=["payout"])
    currency: str = Field(examples=["usd"])
    count: int
    amount: Cents = Field(validation_alias="cents")


class DifferenceReply(Reply):
    """A movement that is in one book only, or in both with different amounts."""

    kind: str = Field(examples=["charge"])
    cause: str = Field(examples=["pi_3Q0", "re_3Q0:refund"])
    payment_id: str | None
    user_id: str | None = Field(validation_alias="account_id")
    stripe: Cents | None = Field(validation_alias="stripe_cents")
    booked: Cents | None = Field(validation_alias="booked_cents")
    sentence: str


class ComparisonReply(Reply):
    """The comparison of one day (UTC); `differences` has the first hundred.

    `not_ours` counts movements of payments that Tollkeeper did not begin, `pending` charges that
    may still fail, and `of_other_days` postings of this day for money of another.
    """

    day: date
    is_live: bool
    compared_at: Instant
    ok: bool = Field(validation_alias=AliasPath("report", "is_ok"))
    kinds: list[ComparedKindReply] = Field(validation_alias=AliasPath("report", "kinds"))
    fees: list[FeesReply] = Field(validation_alias=AliasPath("report", "fees"))
    others: list[OtherMovementsReply] = Field(validation_alias=AliasPath("report", "others"))
    not_ours: int = Field(validation_alias=AliasPath("report", "not_ours"))
    pending: int = Field(validation_alias=AliasPath("report", "pending"))
    of_other_days: int = Field(validation_alias=AliasPath("report", "of_other_days"))
    difference_count: int = Field(validation_alias=AliasPath("report", "difference_count"))
    differences: list[DifferenceReply] = Field(validation_alias=AliasPath("report", "differences"))


class ComparisonPageReply(Page):
    """Comparisons, latest day first."""

    data: list[ComparisonReply]


@router.post("", status_code=201, summary="Compare a day with Stripe's balance")
async def compare_day(
    body: DayBody, actor: FromAdministrator, payments: FromPayments, audit: FromAudit
) -> ComparisonReply:
    """Compare a day that is over; 409 while that day is compared. An earlier report is replaced."""
    try:
        day = date.fromisoformat(body.day)
    except ValueError:
        raise ProblemError(422, "invalid_request", "there is no such day") from None
    compared = await payments.nightly.compare_again(day)
    event = AuditEvent("stripe_comparison.run", f"stripe_comparison:{body.day}")
    await audit.add(actor, event)
    return ComparisonReply.model_validate(compared)


@router.get("", summary="List comparisons with Stripe's balance")
async def list_comparisons(
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    comparisons: FromStripeComparisons,
) -> ComparisonPageReply:
    """List the last comparison of each day, latest day first."""
    page, cursor = await cursors.page(
        "stripe-comparisons",
        query,
        comparisons.list_page,
        lambda last: (last.day.isoformat(), int(last.is_live)),
        lambda day, is_live: (date.fromisoformat(day), bool(is_live)),
    )
    return ComparisonPageReply.of(page, cursor)


def _decimal(cents: int) -> str:
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"
