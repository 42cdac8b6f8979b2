"""The account of the caller: its credit, transactions and usage."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from meter.api.admin.credits import CreditsReply, LotsReply
from meter.api.admin.transactions import FromAccountTransactions, TransactionPageReply
from meter.api.admin.usage import FromAccountUsage, UsagePageReply, UsageQuery, UsageReply
from meter.api.authentication import FromReader, WithKey
from meter.api.exact_json import to_json, usd_number
from meter.api.fields import PageQuery
from meter.api.services import FromAccounts, FromLots, FromUsage
from meter.errors import StoreUnavailable

router = APIRouter(prefix="/api/v1", tags=["Your own"], dependencies=WithKey)


class TotalCreditsMembers(BaseModel):
    """Credit in all and its use, in US dollars, as OpenRouter's clients read them."""

    total_credits: float = Field(description="The balance and what was charged")
    total_usage: float = Field(description="The charges in all, at most a minute old")


class OwnCreditsReply(CreditsReply):
    """The money of the caller's account; `data` is null where adding up takes too long."""

    data: TotalCreditsMembers | None


@router.get("/credits", summary="Get your credit", responses={200: {"model": OwnCreditsReply}})
async def get_own_credits(caller: FromReader, accounts: FromAccounts, usage: FromUsage) -> Response:
    """Return the balance, the amount held for running requests, and the amount available.

    Also at `/v1/credits` and `/api/v1/llm/credits`. The member `data` is in OpenRouter's shape.
    """
    account = await accounts.get(caller.account_id)
    members: dict[str, Any] = CreditsReply.model_validate(account).model_dump(mode="json")
    try:
        charged_picos = await usage.total_charged(caller.account_id)
    except StoreUnavailable:
        members["data"] = None
    else:
        members["data"] = {
            "total_credits": usd_number(account.funds.balance_picos + charged_picos),
            "total_usage": usd_number(charged_picos),
        }
    return Response(to_json(members), media_type="application/json")


@router.get("/credits/lots", summary="List your credit that expires")
async def list_own_lots(caller: FromReader, lots: FromLots) -> LotsReply:
    """List credit that expires and is not spent, in the order in which it is spent."""
    return LotsReply.model_validate(await lots.get_open(caller.account_id))


@router.get("/transactions", summary="List your transactions")
async def list_own_transactions(
    caller: FromReader, query: Annotated[PageQuery, Query()], transactions: FromAccountTransactions
) -> TransactionPageReply:
    """List the transactions that changed your balance, newest first."""
    return await transactions.page(caller.account_id, query)


@router.get("/usage", summary="Add up your usage")
async def total_own_usage(
    caller: FromReader, query: Annotated[UsageQuery, Query()], account_usage: FromAccountUsage
) -> UsagePageReply:
    """Add up requests, tokens and charge by day, model or key; 366 days at most."""
    rows, cursor = await account_usage.page(caller.account_id, query)
    return UsagePageReply(
        data=[UsageReply.model_validate(row) for row in rows],
        next_cursor=cursor,
        group_by=query.group_by,
    )
