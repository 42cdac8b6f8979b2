"""The keys of providers that the caller's account stores and pays for itself (BYOK)."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import Caller, FromKeyKeeper, FromReader, WithKey
from meter.api.fields import Body, Instant, NotNull, ProviderKeyText, ProviderPath, Reply
from meter.api.services import FromOwnKeys
from meter.identity.keys.key_rights import SelfService
from meter.identity.principal import OwnKeyMode
from meter.providers.key_store import ProviderKeyListing
from meter.providers.own_keys import StoredOwnKeys
from meter.sealing import SecretText

router = APIRouter(prefix="/api/v1/provider-keys", tags=["Your own keys"], dependencies=WithKey)

Mode = Annotated[
    OwnKeyMode,
    Field(
        strict=False,
        description="`prefer`: your key where there is one for the model, else credit; `only`: your"
        " key or not at all; `never`: credit",
    ),
]


class ProviderKeyListingReply(Reply):
    """A key without its secret. `refused_at` is null while the provider accepts the key."""

    provider: str = Field(examples=["openai"])
    hint: str = Field(description="The end of the key", examples=["...c0de"])
    updated_at: Instant
    refused_at: Instant | None = Field(
        description="When the provider last refused the key for a request"
    )
    refused_status: int | None = Field(examples=[401])
    refused_reason: str | None = Field(examples=["the provider has no credit left for the key"])


class ProviderKeysReply(Reply):
    """Your provider keys, and the terms by which requests use them."""

    mode: OwnKeyMode
    may_fall_back_to_credit: bool = Field(
        description="Whether credit pays while the provider refuses your key"
    )
    fee_bps: int = Field(
        description="The part of the provider's price that is charged, in basis points",
        examples=[0],
    )
    data: list[ProviderKeyListingReply]


class OwnProviderKeyBody(Body):
    """A key of your own. It is tried by a free call, sealed at once, and never shown again."""

    key: ProviderKeyText


class OwnKeyTermsBody(Body):
    """New terms; members that are left out stay as they are."""

    mode: Annotated[Mode | None, NotNull()] = None
    may_fall_back_to_credit: Annotated[bool | None, NotNull()] = None

    def to_changes(self) -> dict[str, Any]:
        """Return the terms that the body names."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def to_reply(stored: StoredOwnKeys) -> ProviderKeysReply:
    """Return the reply that lists stored keys."""
    return ProviderKeysReply(
        mode=stored.terms.mode,
        may_fall_back_to_credit=stored.terms.may_fall_back_to_credit,
        fee_bps=stored.terms.fee_bps,
        data=[_listing(one) for one in stored.keys],
    )


def _listing(one: ProviderKeyListing) -> ProviderKeyListingReply:
    return ProviderKeyListingReply.model_validate(one)


def _editor(caller: Caller) -> SelfService:
    principal = caller.principal
    return SelfService(
        principal.credential_id, principal.scopes, principal.pass_id, principal.ends_at
    )


@router.get("", summary="List your provider keys")
async def list_own_provider_keys(caller: FromReader, own_keys: FromOwnKeys) -> ProviderKeysReply:
    """List the keys of providers that you have stored, without their secrets."""
    return to_reply(await own_keys.list_stored(caller.account_id))


@router.patch("", summary="Change how your provider keys are used")
async def change_own_key_terms(
    body: OwnKeyTermsBody, caller: FromKeyKeeper, own_keys: FromOwnKeys
) -> ProviderKeysReply:
    """Change the mode of your account, and whether credit pays while a key is refused."""
    await own_keys.change_terms(caller.actor, caller.account_id, body.to_changes(), _editor(caller))
    return to_reply(await own_keys.list_stored(caller.account_id))


@router.put("/{provider}", status_code=204, summary="Store a provider key of your own")
async def put_own_provider_key(
    provider: ProviderPath, body: OwnProviderKeyBody, caller: FromKeyKeeper, own_keys: FromOwnKeys
) -> None:
    """Store your key of a provider, in place of the one before.

    The provider is asked first, by a call that costs nothing; a key that it refuses is not stored.
    Requests to its models then go straight to it with this key, without credit.
    """
    plain = SecretText(body.key.get_secret_value())
    await own_keys.set_key(caller.actor, caller.account_id, provider, plain, _editor(caller))


@router.delete("/{provider}", status_code=204, summary="Delete a provider key of your own")
async def delete_own_provider_key(
    provider: ProviderPath, caller: FromKeyKeeper, own_keys: FromOwnKeys
) -> None:
    """Delete your key of a provider. Within a second no request goes out with it."""
    await own_keys.delete_key(caller.actor, caller.account_id, provider, _editor(caller))
