"""Credit: the balance of a user, and the credit that administrators give or take back."""

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Header, Response
from pydantic import AliasPath, ConfigDict, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    Amount,
    Body,
    FutureInstant,
    Instant,
    Reason,
    Reply,
    Usd,
    UserId,
    either,
)
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromLedger, FromLots
from meter.ledger.lots import LOTS_SHOWN
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
    """An amount to give (positive) or to take back (negative). Only what is given may expire."""

    model_config = ConfigDict(
        json_schema_extra=either(
            {"expires_at": "null"}, {"expires_at": "string", "amount": {"pattern": "^[^-]"}}
        )
    )

    amount: Amount
    reason: Reason
    expires_at: FutureInstant | None = Field(
        default=None,
        description="From this instant on, what is left of the credit cannot be used. Left out: it "
        "never expires",
    )


class PostedCreditReply(Reply):
    """The posting in the ledger, and the balance right after it."""

    id: UUID
    type: str = Field(validation_alias="template", examples=["grant", "adjustment"])
    amount: Usd = Field(validation_alias="amount_picos")
    reason: str
    at: Instant = Field(validation_alias="recorded_at")
    balance: Usd = Field(validation_alias="balance_after_picos")
    expires_at: Instant | None


class CreditsReply(Reply):
    """The money of a user. One credit is one US dollar."""

    balance: Usd = Field(validation_alias=AliasPath("funds", "balance_picos"))
    held: Usd = Field(
        validation_alias=AliasPath("funds", "held_picos"),
        description="Set aside for requests that run now",
    )
    available: Usd = Field(
        validation_alias=AliasPath("funds", "available_picos"),
        description="Balance less what is held, and less credit that has expired",
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


class LotReply(Reply):
    """Credit that expires, with what is left of it."""

    id: UUID = Field(description="The id of the posting that gave it")
    amount: Usd = Field(validation_alias="amount_picos")
    remaining: Usd = Field(validation_alias="remaining_picos")
    expires_at: Instant
    granted_at: Instant
    reason: str


class LotsReply(Reply):
    """The credit of a user that expires, the earliest expiry first: in this order it is spent."""

    data: list[LotReply] = Field(
        validation_alias="lots", description=f"The first {LOTS_SHOWN}; usually there are few"
    )
    expiring: Usd = Field(
        validation_alias="expiring_picos",
        description="What is left in all of them. The rest of the balance never expires, and is "
        "spent last",
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
    posting = credit(user_id, key, parse_usd(body.amount), body.reason, body.expires_at)
    posted = await ledger.post_credit(posting, actor)
    if posted.was_replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return PostedCreditReply.model_validate(posted)


@router.get("", summary="Get a user's credit")
async def get_credits(user_id: UserId, accounts: FromAccounts) -> CreditsReply:
    """Return the balance, the amount held for running requests, and the amount available."""
    return CreditsReply.model_validate(await accounts.get(user_id))


@router.get("/lots", summary="List a user's credit that expires")
async def list_lots(user_id: UserId, accounts: FromAccounts, lots: FromLots) -> LotsReply:
    """List credit that expires and is not spent, in the order in which it is spent."""
    await accounts.get(user_id)
    return LotsReply.model_validate(await lots.get_open(user_id))
