"""Policy decisions: requests that ended without anybody saying what they used."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromCursors, FromReviews
from meter.money import format_usd
from meter.settlement.review import PastPolicyDecision

router = APIRouter(
    prefix="/api/v1/admin/policy-decisions", tags=["Ledger"], dependencies=AdministratorsOnly
)


class Verdict(StrEnum):
    """What was decided: an estimate was charged, or the hold was let go."""

    CHARGE = "charge"
    VOID = "void"


class PolicyDecisionReply(Reply):
    """One request. `charge` is what it comes to by now, other than `charged_by_policy` once the
    truth turned up and corrected it."""

    hold_id: str = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    placed_at: Instant
    decided_at: Instant
    user_id: str
    model: str
    verdict: Verdict
    rule: str | None = Field(examples=["no_record", "not_reported"])
    held: Usd
    charged_by_policy: Usd
    charge: Usd
    is_corrected: bool
    generation_id: str | None

    @classmethod
    def from_decided(cls, decided: PastPolicyDecision) -> "PolicyDecisionReply":
        return cls(
            hold_id=decided.hold_id.hex,
            placed_at=decided.placed_at,
            decided_at=decided.decided_at,
            user_id=decided.account_id,
            model=decided.model_id,
            verdict=Verdict.CHARGE if decided.is_charge else Verdict.VOID,
            rule=decided.rule,
            held=format_usd(decided.held_picos),
            charged_by_policy=format_usd(decided.charged_picos),
            charge=format_usd(decided.charge_picos),
            is_corrected=decided.is_corrected,
            generation_id=decided.generation_id,
        )


class PolicyDecisionPageReply(Page):
    """Policy decisions; the requests that were placed last come first."""

    data: list[PolicyDecisionReply]


@router.get("", summary="List policy decisions")
async def list_policy_decisions(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, reviews: FromReviews
) -> PolicyDecisionPageReply:
    """Every request that a policy charged an estimate for, or let go, corrected since or not."""
    scope = "policy-decisions"
    after = cursors.open_instant(scope, query.cursor)
    rows = await reviews.list_policy_decisions(after, query.limit + 1)
    page, cursor = cursors.next_page(
        scope, rows, query.limit, lambda last: (last.placed_at.isoformat(), last.hold_id.hex)
    )
    return PolicyDecisionPageReply(
        data=[PolicyDecisionReply.from_decided(one) for one in page], next_cursor=cursor
    )
