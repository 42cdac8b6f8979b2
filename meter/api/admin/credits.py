"""Credit: what a user has, and what administrators give or take back."""

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Header, Response
from pydantic import AfterValidator, Field

from meter.accounts.account import Funds
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Amount, Body, Instant, PlainText, Reply, Usd, UserId
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromLedger
from meter.ledger.postings import credit
from meter.ledger.statement import CreditPosted
from meter.money import format_usd, parse_usd

MAX_REASON_CHARS: Final = 500
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,200}")

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/credits", tags=["Credit"], dependencies=AdministratorsOnly
)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a reason must not be blank")
    return text


Reason = Annotated[
    PlainText,
    AfterValidator(_not_blank),
    Field(min_length=1, max_length=MAX_REASON_CHARS, examples=["paid invoice 17"]),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Required. 1 to 200 visible characters; the same key posts once, however "
        "often the request is sent",
        examples=["invoice-17"],
    ),
]


class CreditBody(Body):
    """Credit to give (positive) or to take back (negative)."""

    amount: Amount
    reason: Reason


class PostedCreditReply(Reply):
    """The posting in the ledger, and the balance right after it."""

    id: UUID
    type: str = Field(examples=["grant", "adjustment"])
    amount: Usd
    reason: str
    at: Instant
    balance: Usd

    @classmethod
    def from_posted(cls, posted: CreditPosted) -> "PostedCreditReply":
        return cls(
            id=posted.id,
            type=posted.template,
            amount=format_usd(posted.amount_picos),
            reason=posted.reason,
            at=posted.recorded_at,
            balance=format_usd(posted.balance_after_picos),
        )


class CreditsReply(Reply):
    """What a user has. One credit is one US dollar."""

    balance: Usd
    held: Usd = Field(description="Set aside for requests that run now")
    available: Usd = Field(description="Balance less what is held")
    overdrawn: Usd = Field(description="How far charges above their holds went below zero")
    is_blocked: bool = Field(description="Nothing is let in until available is back above zero")

    @classmethod
    def from_funds(cls, funds: Funds) -> "CreditsReply":
        return cls(
            balance=format_usd(funds.balance_picos),
            held=format_usd(funds.held_picos),
            available=format_usd(funds.available_picos),
            overdrawn=format_usd(funds.overdrawn_picos),
            is_blocked=funds.is_blocked,
        )


@router.post("", status_code=201, summary="Give or take back credit")
async def post_credit(
    user_id: UserId,
    body: CreditBody,
    actor: FromAdministrator,
    ledger: FromLedger,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> PostedCreditReply:
    """Post once per `Idempotency-Key`.

    The same key with the same body answers the first posting again, with the header
    `Idempotent-Replayed: true`; with another body it is refused with 409. Taking back more than
    is available is refused with 409.
    """
    key = _usable_key(idempotency_key)
    posting = credit(user_id, key, parse_usd(body.amount), body.reason)
    posted = await ledger.post_credit(posting, actor)
    if posted.was_replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return PostedCreditReply.from_posted(posted)


@router.get("", summary="Get a user's credit")
async def get_credits(user_id: UserId, accounts: FromAccounts) -> CreditsReply:
    """Balance, what is held, and what is available."""
    account = await accounts.get(user_id)
    return CreditsReply.from_funds(account.funds)


def _usable_key(key: str | None) -> str:
    if key is None:
        raise ProblemError(
            400,
            "idempotency_key_required",
            "send an Idempotency-Key header, so that a repeated request posts only once",
        )
    if _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise ProblemError(
            400, "invalid_idempotency_key", "an Idempotency-Key has 1 to 200 visible characters"
        )
    return key
