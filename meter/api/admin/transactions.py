"""Transactions: an account's ledger postings, newest first."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Page, PageQuery, Reply, Usd, UserId
from meter.api.services import FromAccounts, FromCursors, FromLedger
from meter.ledger.statement import Transaction
from meter.money import format_usd

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/transactions",
    tags=["Transactions and usage"],
    dependencies=AdministratorsOnly,
)


class TransactionReply(Reply):
    """One change of a balance. Model, key, tokens and ids are set if it paid for a request."""

    id: UUID
    at: Instant
    type: str = Field(
        examples=["settlement", "excess", "grant", "adjustment", "correction", "reversal"]
    )
    amount: Usd = Field(description="Signed US dollars: negative when the balance went down")
    reason: str | None
    model: str | None
    key_id: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    generation_id: str | None = Field(description="The provider's id, which the reply has")
    request_id: UUID | None = Field(description="The header x-request-id of the reply")

    @classmethod
    def from_posted(cls, posted: Transaction) -> "TransactionReply":
        request = posted.request
        return cls(
            id=posted.id,
            at=posted.recorded_at,
            type=posted.template,
            amount=format_usd(posted.amount_picos),
            reason=posted.reason,
            model=request.model_id if request else None,
            key_id=request.credential_id if request else None,
            prompt_tokens=request.prompt_tokens if request else None,
            completion_tokens=request.completion_tokens if request else None,
            generation_id=request.generation_id if request else None,
            request_id=request.request_id if request else None,
        )


class TransactionPageReply(Page):
    """Transactions, newest first."""

    data: list[TransactionReply]


@dataclass(frozen=True, slots=True)
class AccountTransactions:
    """Reads pages of an account's transactions, for administrators and for the account itself."""

    ledger: FromLedger
    cursors: FromCursors

    async def page(self, account_id: str, query: PageQuery) -> TransactionPageReply:
        """Return one page, newest first."""
        scope = f"transactions:{account_id}"
        fetch = partial(self.ledger.list_transactions, account_id)
        page, cursor = await self.cursors.page(
            scope, query, fetch, lambda last: (last.position,), int
        )
        data = [TransactionReply.from_posted(one) for one in page]
        return TransactionPageReply(data=data, next_cursor=cursor)


FromAccountTransactions = Annotated[AccountTransactions, Depends()]


@router.get("", summary="List a user's transactions")
async def list_transactions(
    user_id: UserId,
    query: Annotated[PageQuery, Query()],
    accounts: FromAccounts,
    transactions: FromAccountTransactions,
) -> TransactionPageReply:
    """List the transactions that changed the user's balance, newest first."""
    await accounts.get(user_id)
    return await transactions.page(user_id, query)
