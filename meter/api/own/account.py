"""The account of the caller: its credit, transactions and usage."""

from typing import Annotated

from fastapi import APIRouter, Query

from meter.api.admin.credits import CreditsReply, LotsReply
from meter.api.admin.transactions import FromAccountTransactions, TransactionPageReply
from meter.api.admin.usage import FromAccountUsage, UsagePageReply, UsageQuery, UsageReply
from meter.api.authentication import FromReader, WithKey
from meter.api.fields import PageQuery
from meter.api.services import FromAccounts, FromLots

router = APIRouter(prefix="/api/v1", tags=["Your own"], dependencies=WithKey)


@router.get("/credits", summary="Get your credit")
async def get_own_credits(caller: FromReader, accounts: FromAccounts) -> CreditsReply:
    """Return the balance, the amount held for running requests, and the amount available."""
    return CreditsReply.model_validate(await accounts.get(caller.account_id))


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
