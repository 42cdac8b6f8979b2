"""Policy decisions: requests that ended by policy, because their usage never became known."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, Field

from meter.api.authentication import AdministratorsOnly
from meter.api.cursors import instant_and_id
from meter.api.fields import HexId, Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromCursors, FromReviews

router = APIRouter(
    prefix="/api/v1/admin/policy-decisions", tags=["Ledger"], dependencies=AdministratorsOnly
)


class Verdict(StrEnum):
    """The decision: charge an estimate, or end the hold without a charge."""

    CHARGE = "charge"
    VOID = "void"


class PolicyDecisionReply(Reply):
    """One request that a policy ended.

    `charge` is the charge now. It differs from `charged_by_policy` if the usage became known later
    and corrected the charge.
    """

    hold_id: HexId = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    placed_at: Instant
    decided_at: Instant
    user_id: str = Field(validation_alias="account_id")
    model: str = Field(validation_alias="model_id")
    verdict: Annotated[
        Verdict, BeforeValidator(lambda is_charge: Verdict.CHARGE if is_charge else Verdict.VOID)
    ] = Field(validation_alias="is_charge")
    rule: str | None = Field(examples=["no_record", "not_reported"])
    held: Usd = Field(validation_alias="held_picos")
    charged_by_policy: Usd = Field(validation_alias="charged_picos")
    charge: Usd = Field(validation_alias="charge_picos")
    is_corrected: bool
    generation_id: str | None


class PolicyDecisionPageReply(Page):
    """Policy decisions, those on the youngest requests first."""

    data: list[PolicyDecisionReply]


@router.get("", summary="List policy decisions")
async def list_policy_decisions(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, reviews: FromReviews
) -> PolicyDecisionPageReply:
    """List the requests that a policy charged or ended without a charge, corrected or not."""
    page, cursor = await cursors.page(
        "policy-decisions",
        query,
        reviews.list_policy_decisions,
        lambda last: (last.placed_at.isoformat(), last.hold_id.hex),
        instant_and_id,
    )
    return PolicyDecisionPageReply.of(page, cursor)
