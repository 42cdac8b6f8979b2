"""Settlement conflicts: reports of usage that contradict the books and were not applied."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromCursors, FromReviews
from meter.money import format_usd
from meter.settlement.review import SettlementConflict

router = APIRouter(
    prefix="/api/v1/admin/settlement-conflicts", tags=["Ledger"], dependencies=AdministratorsOnly
)


class SettlementConflictReply(Reply):
    """One report of usage beside the books.

    `user_id` and `recorded_cost` are null if the books have no usage record of the request.
    `arrived_cost` is the cost in the report, null if it has none.
    """

    id: int
    at: Instant
    kind: str = Field(examples=["other_amount", "hold_not_found"])
    hold_id: str = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    user_id: str | None
    recorded_cost: Usd | None
    arrived_cost: str | None = Field(description="US dollars as they arrived")
    arrived_by: str | None = Field(examples=["stream", "file", "lookup"])
    generation_id: str | None
    status_code: int | None
    response_flags: str | None

    @classmethod
    def from_kept(cls, kept: SettlementConflict) -> "SettlementConflictReply":
        arrived = kept.arrived
        usage = arrived.get("usage") or {}
        return cls(
            id=kept.id,
            at=kept.recorded_at,
            kind=kept.kind,
            hold_id=kept.hold_id.hex,
            user_id=kept.account_id,
            recorded_cost=None if kept.cost_picos is None else format_usd(kept.cost_picos),
            arrived_cost=usage.get("cost_usd"),
            arrived_by=arrived.get("source"),
            generation_id=arrived.get("generation_id"),
            status_code=arrived.get("status_code"),
            response_flags=arrived.get("response_flags"),
        )


class SettlementConflictPageReply(Page):
    """Settlement conflicts, newest first."""

    data: list[SettlementConflictReply]


@router.get("", summary="List settlement conflicts")
async def list_settlement_conflicts(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, reviews: FromReviews
) -> SettlementConflictPageReply:
    """List the reports that were stored but not applied; none ever leaves the list."""
    page, cursor = await cursors.page(
        "settlement-conflicts", query, reviews.list_conflicts, lambda last: (last.id,), int
    )
    return SettlementConflictPageReply(
        data=[SettlementConflictReply.from_kept(one) for one in page], next_cursor=cursor
    )
