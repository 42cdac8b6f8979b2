"""Holds: the money set aside now, and the requests whose usage is unknown."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromCursors, FromHolds
from meter.holds.live_hold import LiveHold
from meter.money import format_usd

router = APIRouter(prefix="/api/v1/admin/holds", tags=["Ledger"], dependencies=AdministratorsOnly)


class LiveState(StrEnum):
    """The states of a hold that has not ended."""

    OPEN = "open"
    UNKNOWN = "unknown"


class HoldQuery(PageQuery):
    """Which holds to list."""

    state: Annotated[LiveState | None, Query(description="Both, when left out")] = None


class HoldSummaryReply(Reply):
    """How many holds have not ended."""

    open: int
    unknown: int
    oldest_open_seconds: int | None = Field(description="null when none is open")
    unknown_by_reason: dict[str, int]


class HoldReply(Reply):
    """Money set aside for one request that has not ended in the books."""

    id: str = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    user_id: str
    key_id: str
    model: str
    endpoint: str
    amount: Usd
    state: LiveState
    unknown_reason: str | None
    generation_id: str | None
    status_code: int | None
    response_flags: str | None
    created_at: Instant
    expires_at: Instant

    @classmethod
    def from_live(cls, hold: LiveHold) -> "HoldReply":
        return cls(
            id=hold.id.hex,
            user_id=hold.account_id,
            key_id=hold.credential_id,
            model=hold.model_id,
            endpoint=hold.endpoint,
            amount=format_usd(hold.amount_picos),
            state=LiveState(hold.state),
            unknown_reason=hold.unknown_reason,
            generation_id=hold.generation_id,
            status_code=hold.status_code,
            response_flags=hold.response_flags,
            created_at=hold.created_at,
            expires_at=hold.expires_at,
        )


class HoldPageReply(Page):
    """Holds, oldest first."""

    data: list[HoldReply]


@router.get("/summary", summary="Count live holds")
async def summarise_holds(holds: FromHolds) -> HoldSummaryReply:
    """How many holds are open, how many are unknown, and why."""
    return HoldSummaryReply.model_validate(await holds.summarise())


@router.get("", summary="List live holds")
async def list_holds(
    query: Annotated[HoldQuery, Query()], cursors: FromCursors, holds: FromHolds
) -> HoldPageReply:
    """Holds that have not ended, oldest first."""
    scope = f"holds:{query.state}"
    after = cursors.open_instant(scope, query.cursor)
    rows = await holds.list_page(query.state, after, query.limit + 1)
    page, cursor = cursors.next_page(
        scope, rows, query.limit, lambda last: (last.created_at.isoformat(), last.id.hex)
    )
    return HoldPageReply(data=[HoldReply.from_live(hold) for hold in page], next_cursor=cursor)
