"""The provider keys that users have stored: that there is one, since when, and whether it works."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import ProviderPath, Reply, UserId
from meter.api.services import FromOwnKeys
from meter.identity.keys.key_rights import Administrator
from meter.identity.principal import OwnKeyMode

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/provider-keys",
    tags=["Providers"],
    dependencies=AdministratorsOnly,
)


class UserProviderKeyReply(Reply):
    """A key that a user has stored. Nothing of the key itself is shown."""

    provider: str = Field(examples=["openai"])
    updated_at: datetime
    refused_at: datetime | None = Field(
        description="When the provider last refused the key for a request"
    )
    refused_status: int | None = Field(examples=[401])
    refused_reason: str | None = Field(examples=["the provider has no credit left for the key"])


class UserProviderKeysReply(Reply):
    """A user's provider keys, and the terms by which requests use them."""

    mode: OwnKeyMode
    may_fall_back_to_credit: bool
    fee_bps: int = Field(examples=[0])
    data: list[UserProviderKeyReply]


@router.get("", summary="List a user's provider keys")
async def list_user_provider_keys(user_id: UserId, own_keys: FromOwnKeys) -> UserProviderKeysReply:
    """List which keys of providers a user has stored, and since when."""
    stored = await own_keys.list_stored(user_id)
    return UserProviderKeysReply(
        mode=stored.terms.mode,
        may_fall_back_to_credit=stored.terms.may_fall_back_to_credit,
        fee_bps=stored.terms.fee_bps,
        data=[UserProviderKeyReply.model_validate(one) for one in stored.keys],
    )


@router.delete("/{provider}", status_code=204, summary="Delete a user's provider key")
async def delete_user_provider_key(
    user_id: UserId, provider: ProviderPath, actor: FromAdministrator, own_keys: FromOwnKeys
) -> None:
    """Delete a key that a user has stored. Within a second no request goes out with it."""
    await own_keys.delete_key(actor, user_id, provider, Administrator())
