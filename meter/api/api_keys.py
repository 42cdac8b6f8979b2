"""API keys: made for a user, shown once, listed without the secret, revoked."""

import re
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field

from meter.api.authentication import OperatorOnly
from meter.api.dependencies import Books, FromBooks
from meter.api.fields import Body, Instant, Name, Page, PageQuery, Reply, UserId
from meter.credentials import mint
from meter.errors import NotFound
from meter.stores.credentials import KeyTerms

MAX_EXPIRY_DAYS: Final = 3650
MOST_ALLOWED_MODELS: Final = 100
_KEY_ID: Final = re.compile(r"[a-z2-7]{16}")


def _unique(models: list[str]) -> list[str]:
    return list(dict.fromkeys(models))


ModelPattern = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$", examples=["openai/*"])
]
AllowedModels = Annotated[
    list[ModelPattern],
    AfterValidator(_unique),
    Field(
        min_length=1,
        max_length=MOST_ALLOWED_MODELS,
        description="Ids of models, or patterns with `*`; left out: every model",
        examples=[["openai/gpt-4o-mini", "anthropic/*"]],
    ),
]

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/api-keys", tags=["API keys"], dependencies=OperatorOnly
)


class NewKey(Body):
    """A key to be made."""

    name: Name
    expires_in_days: int | None = Field(default=None, ge=1, le=MAX_EXPIRY_DAYS, examples=[90])
    allowed_models: AllowedModels | None = None


class Key(Reply):
    """A key without its secret, which nobody has any more."""

    id: str = Field(examples=["k3vtq2m6zwxa4b7c"])
    name: str
    prefix: str = Field(examples=["tk-k3vtq2m6zwxa4b7c"])
    allowed_models: list[str] | None = Field(description="null: every model")
    created_at: Instant
    expires_at: datetime | None
    revoked_at: datetime | None


class IssuedKey(Key):
    """A new key with its secret, this once."""

    key: str = Field(description="The secret: it is never shown again")


class KeyPage(Page):
    """Keys, newest first, revoked ones included."""

    data: list[Key]


@router.post("", status_code=201, summary="Create an API key")
async def create_key(user_id: UserId, body: NewKey, books: FromBooks) -> IssuedKey:
    """Make a key. The answer is the only place where the secret ever appears."""
    allowed = None if body.allowed_models is None else tuple(body.allowed_models)
    minted = mint()
    terms = KeyTerms(body.name, allowed, body.expires_in_days)
    credential = await books.credentials.issue(user_id, minted, terms)
    return IssuedKey(**Key.model_validate(credential).model_dump(), key=minted.plain.reveal())


@router.get("", summary="List a user's API keys")
async def list_keys(
    user_id: UserId, query: Annotated[PageQuery, Query()], books: FromBooks
) -> KeyPage:
    """The user's keys without secrets."""
    await books.accounts.get(user_id)
    return await key_page(books, user_id, query)


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key")
async def revoke_key(
    user_id: UserId, key_id: Annotated[str, Path(examples=["k3vtq2m6zwxa4b7c"])], books: FromBooks
) -> None:
    """End a key for good. No request is let in with it once this has answered."""
    if _KEY_ID.fullmatch(key_id) is None:
        raise NotFound("the user has no such key")
    await books.credentials.revoke(user_id, key_id)


async def key_page(books: Books, account_id: str, query: PageQuery) -> KeyPage:
    """One page of an account's keys."""
    scope = f"keys:{account_id}"
    after = books.cursors.open_instant(scope, query.cursor)
    rows = await books.credentials.list_page(account_id, after, query.limit + 1)
    page, cursor = books.cursors.next_page(
        scope, rows, query.limit, lambda last: (last.created_at.isoformat(), last.id)
    )
    return KeyPage(data=[Key.model_validate(one) for one in page], next_cursor=cursor)
