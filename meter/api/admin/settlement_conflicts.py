"""Settlement conflicts: arrivals that said something else than the books, and changed nothing."""

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
    """One arrival beside what is recorded. `user_id` and `recorded_cost` are null where nothing
    is; `arrived_cost` is the provider's own figure, null where it named none."""

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
    """Arrivals that were kept and never applied; they stay listed for good."""
    scope = "settlement-conflicts"
    position = cursors.open(scope, query.cursor)
    before = None if position is None else int(position[0])
    rows = await reviews.list_conflicts(before, query.limit + 1)
    page, cursor = cursors.next_page(scope, rows, query.limit, lambda last: (last.id,))
    return SettlementConflictPageReply(
        data=[SettlementConflictReply.from_kept(one) for one in page], next_cursor=cursor
    )
