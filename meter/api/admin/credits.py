"""Credit: the balance of a user, and the credit that administrators give or take back."""

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Header, Response
from pydantic import AliasPath, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Amount, Body, Instant, Reason, Reply, Usd, UserId
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromLedger
from meter.ledger.postings import credit
from meter.money import parse_usd

_IDEMPOTENCY_KEY: Final = r"[!-~]{1,200}"

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/credits", tags=["Credit"], dependencies=AdministratorsOnly
)
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Required. 1 to 200 visible characters. Requests with the same key post once",
        examples=["invoice-17"],
        json_schema_extra={"pattern": f"^{_IDEMPOTENCY_KEY}$"},
    ),
]


class CreditBody(Body):
    """An amount to give (positive) or to take back (negative)."""

    amount: Amount
    reason: Reason


class PostedCreditReply(Reply):
    """The posting in the ledger, and the balance right after it."""

    id: UUID
    type: str = Field(validation_alias="template", examples=["grant", "adjustment"])
    amount: Usd = Field(validation_alias="amount_picos")
    reason: str
    at: Instant = Field(validation_alias="recorded_at")
    balance: Usd = Field(validation_alias="balance_after_picos")


class CreditsReply(Reply):
    """The money of a user. One credit is one US dollar."""

    balance: Usd = Field(validation_alias=AliasPath("funds", "balance_picos"))
    held: Usd = Field(
        validation_alias=AliasPath("funds", "held_picos"),
        description="Set aside for requests that run now",
    )
    available: Usd = Field(
        validation_alias=AliasPath("funds", "available_picos"),
        description="Balance less what is held",
    )
    overdrawn: Usd = Field(
        validation_alias=AliasPath("funds", "overdrawn_picos"),
        description="The amount by which charges above their holds, refunds and disputes "
        "went below zero",
    )
    is_blocked: bool = Field(
        validation_alias=AliasPath("funds", "is_blocked"),
        description="No request is accepted until `available` is zero or more",
    )


def require_idempotency_key(key: str | None) -> str:
    """Return the key. Raises ProblemError (400) where it is missing or has another form."""
    if key is None:
        raise ProblemError(
            400,
            "idempotency_key_required",
            "send an Idempotency-Key header, so that a repeated request posts only once",
        )
    if re.fullmatch(_IDEMPOTENCY_KEY, key) is None:
        raise ProblemError(
            400, "invalid_idempotency_key", "an Idempotency-Key has 1 to 200 visible characters"
        )
    return key


@router.post("", status_code=201, summary="Give or take back credit")
async def post_credit(
    user_id: UserId,
    body: CreditBody,
    actor: FromAdministrator,
    ledger: FromLedger,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> PostedCreditReply:
    """Give credit, or take it back with a negative amount, once for each `Idempotency-Key`.

    The same key with the same body answers the first posting again, with the header
    `Idempotent-Replayed: true`. The same key with another body, or taking back more than is
    available, is refused with 409.
    """
    key = require_idempotency_key(idempotency_key)
    posting = credit(user_id, key, parse_usd(body.amount), body.reason)
    posted = await ledger.post_credit(posting, actor)
    if posted.was_replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return PostedCreditReply.model_validate(posted)


@router.get("", summary="Get a user's credit")
async def get_credits(user_id: UserId, accounts: FromAccounts) -> CreditsReply:
    """Return the balance, the amount held for running requests, and the amount available."""
    return CreditsReply.model_validate(await accounts.get(user_id))
