"""Holds: the money that is set aside now, also for requests whose usage is unknown."""

from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.cursors import instant_and_id
from meter.api.fields import HexId, Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromCursors, FromHolds

router = APIRouter(prefix="/api/v1/admin/holds", tags=["Ledger"], dependencies=AdministratorsOnly)


class LiveState(StrEnum):
    """The states of a hold that has not ended."""

    OPEN = "open"
    UNKNOWN = "unknown"


class HoldQuery(PageQuery):
    """The holds to list."""

    state: Annotated[LiveState | None, Query(description="Left out: both states")] = None


class HoldSummaryReply(Reply):
    """The numbers of holds that have not ended."""

    open: int
    unknown: int
    oldest_open_seconds: int | None = Field(description="null when none is open")
    unknown_by_reason: dict[str, int]


class HoldReply(Reply):
    """Money set aside for one request that has not ended in the books."""

    id: HexId = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    user_id: str = Field(validation_alias="account_id")
    key_id: str = Field(validation_alias="credential_id")
    model: str = Field(validation_alias="model_id")
    endpoint: str
    amount: Usd = Field(validation_alias="amount_picos")
    state: LiveState
    unknown_reason: str | None
    generation_id: str | None
    status_code: int | None
    response_flags: str | None
    created_at: Instant
    expires_at: Instant


class HoldPageReply(Page):
    """Holds, oldest first."""

    data: list[HoldReply]


@router.get("/summary", summary="Count live holds")
async def summarise_holds(holds: FromHolds) -> HoldSummaryReply:
    """Count the holds that are open or unknown; for unknown ones, by the reason."""
    return HoldSummaryReply.model_validate(await holds.summarise())


@router.get("", summary="List live holds")
async def list_holds(
    query: Annotated[HoldQuery, Query()], cursors: FromCursors, holds: FromHolds
) -> HoldPageReply:
    """List the holds that have not ended, oldest first."""
    page, cursor = await cursors.page(
        f"holds:{query.state}",
        query,
        partial(holds.list_page, query.state),
        lambda last: (last.created_at.isoformat(), last.id.hex),
        instant_and_id,
    )
    return HoldPageReply.of(page, cursor)
