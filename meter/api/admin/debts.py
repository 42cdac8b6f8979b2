"""Debt: how far accounts may stay below zero, and what the house bore beyond that."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Debt, Instant, Page, PageQuery, Reply, Usd, UserId
from meter.api.services import FromCursors, FromWriteOffs
from meter.money import parse_usd

router = APIRouter(prefix="/api/v1/admin", tags=["Credit"], dependencies=AdministratorsOnly)


class MaxDebtBody(Body):
    """The limit of a user's debt."""

    max_debt: Debt


class MaxDebtReply(Reply):
    """The limit of a user's debt from requests that cost more than their holds."""

    max_debt: Usd


class WriteOffReply(Reply):
    """Debt beyond the limit of a user, which the house bore."""

    id: int
    posting_id: UUID
    user_id: str = Field(validation_alias="account_id")
    amount: Usd = Field(validation_alias="amount_picos")
    taken_back: Usd = Field(
        validation_alias="taken_back_picos",
        description="The part that later corrections showed not to be owed.",
    )
    at: Instant = Field(validation_alias="written_off_at")


class WriteOffPageReply(Page):
    """Debt that the house bore, newest first."""

    data: list[WriteOffReply]


@router.get("/users/{user_id}/max-debt", summary="Get the debt limit of a user")
async def get_max_debt(user_id: UserId, write_offs: FromWriteOffs) -> MaxDebtReply:
    """Return the limit of the user's debt; 0 unless it was set."""
    return MaxDebtReply.model_validate({"max_debt": await write_offs.get_max_debt(user_id)})


@router.put("/users/{user_id}/max-debt", summary="Set the debt limit of a user")
async def put_max_debt(
    user_id: UserId, body: MaxDebtBody, actor: FromAdministrator, write_offs: FromWriteOffs
) -> MaxDebtReply:
    """Set how far the user may stay below zero. Debt that is written off already stays so."""
    picos = parse_usd(body.max_debt)
    await write_offs.set_max_debt(user_id, picos, actor)
    return MaxDebtReply.model_validate({"max_debt": picos})


@router.get("/write-offs", summary="List debt that was written off")
async def list_write_offs(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, write_offs: FromWriteOffs
) -> WriteOffPageReply:
    """List the debt beyond limits, as it was when the last hold of a user had ended."""
    page, cursor = await cursors.page(
        "write-offs", query, write_offs.list_page, lambda last: (last.id,), int
    )
    return WriteOffPageReply(
        data=[WriteOffReply.model_validate(one) for one in page], next_cursor=cursor
    )
