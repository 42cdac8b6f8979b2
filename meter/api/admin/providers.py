"""Providers: the services that answer requests, and the keys with which they are called."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import Field, SecretStr

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Reply
from meter.api.services import FromOutside, FromProviderKeys, FromProviderKeyService
from meter.providers import openrouter
from meter.providers.key_store import MAX_KEY_CHARS, SYSTEM_OWNER
from meter.sealing import SecretText

router = APIRouter(
    prefix="/api/v1/admin/providers", tags=["Providers"], dependencies=AdministratorsOnly
)


class ProviderName(StrEnum):
    """The providers that Tollkeeper can call."""

    OPENROUTER = openrouter.ID


PROVIDERS: Final = tuple(ProviderName)


class ProviderKeyReply(Reply):
    """The facts about a provider's key that may be shown."""

    hint: str = Field(examples=["...c0de"])
    key_version: int
    updated_at: datetime
    refused_at: datetime | None = Field(
        description="When the provider last refused the key; null while it accepts it"
    )
    refused_status: int | None = Field(examples=[401])
    refused_reason: str | None = Field(examples=["the key is unknown, disabled or revoked"])


class ProviderReply(Reply):
    """A provider. `key` is null until one is set."""

    name: str
    base_url: str | None
    key: ProviderKeyReply | None


class ProviderListReply(Reply):
    """All providers."""

    data: list[ProviderReply]


class ProviderKeyBody(Body):
    """A key to call the provider with. It is sealed at once and never shown again."""

    force: Annotated[
        bool, Field(description="Store the key without asking the provider whether it works")
    ] = False

    key: Annotated[
        SecretStr,
        Field(
            min_length=1,
            max_length=MAX_KEY_CHARS,
            description="Visible ASCII characters",
            json_schema_extra={"pattern": "^[!-~]+$"},
        ),
    ]


@router.get("", summary="List providers")
async def list_providers(
    provider_keys: FromProviderKeys, outside: FromOutside
) -> ProviderListReply:
    """List the providers; those with a key show a hint of it."""
    listings = await provider_keys.list_keys()
    keys = {
        one.provider: ProviderKeyReply.model_validate(one)
        for one in listings
        if one.owner == SYSTEM_OWNER
    }
    base_url = outside.provider_base_url
    return ProviderListReply(
        data=[ProviderReply(name=name, base_url=base_url, key=keys.get(name)) for name in PROVIDERS]
    )


@router.put("/{provider}/key", status_code=204, summary="Set a provider's key")
async def put_provider_key(
    provider: ProviderName,
    body: ProviderKeyBody,
    actor: FromAdministrator,
    provider_key: FromProviderKeyService,
) -> None:
    """Store the key with which all later requests are sent to the provider.

    The provider is asked first, by a call that costs nothing; a key that it refuses is not stored.
    """
    assert provider is ProviderName.OPENROUTER
    plain = SecretText(body.key.get_secret_value())
    await provider_key.set_key(plain, body.force, actor)
