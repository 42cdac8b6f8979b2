"""Providers: the services that answer requests, their keys, and price lists for them."""

from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field, model_validator

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    PROVIDER_ID,
    Body,
    FutureInstant,
    Instant,
    Like,
    NotNull,
    ProviderKeyText,
    ProviderPath,
    Reply,
)
from meter.api.services import FromCatalogue, FromProviders
from meter.money import PICOS_PER_USD, format_usd
from meter.pricing.price_lists import MOST_PRICES, ListedPrice
from meter.pricing.prices import PriceOrigin
from meter.providers.base_urls import MAX_URL_CHARS
from meter.providers.provider import DialectName, ProviderState
from meter.providers.providers import ProviderListing
from meter.sealing import SecretText

router = APIRouter(
    prefix="/api/v1/admin/providers", tags=["Providers"], dependencies=AdministratorsOnly
)

TOKENS_PER_MILLION: Final = 1_000_000
_PREFIX: Final = r"[A-Za-z0-9._/-]{0,60}"

BaseUrl = Annotated[
    str,
    Like(r"https?://[!-~]+", "a base URL begins with https://, such as https://api.example.com/v1"),
    Field(max_length=MAX_URL_CHARS, examples=["https://api.openai.com/v1"]),
]
ModelPrefix = Annotated[
    str,
    Like(_PREFIX, "a prefix has up to 60 letters, digits and ._/-"),
    Field(description="Put before the provider's own names of models", examples=["openai/"]),
]
IsFree = Annotated[
    bool, Field(description="Models without a price cost nothing: a server of your own")
]
PerMillion = Annotated[
    str,
    Like(
        r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?",
        "a price is a decimal string of US dollars for a million tokens with at most 6 decimals,"
        " such as '0.15'",
    ),
    Field(description="US dollars for a million tokens", examples=["0.15"]),
]
PerRequest = Annotated[
    str,
    Like(
        r"(0|[1-9][0-9]{0,3})(\.[0-9]{1,12})?",
        "a price is a decimal string of US dollars for a request, such as '0.005'",
    ),
    Field(description="US dollars for a request", examples=["0.005"]),
]


class ProviderKeyReply(Reply):
    """The facts about a provider's key that may be shown."""

    hint: str = Field(examples=["...c0de"])
    key_version: int
    updated_at: Instant
    refused_at: Instant | None = Field(
        description="When the provider last refused the key; null while it accepts it"
    )
    refused_status: int | None = Field(examples=[401])
    refused_reason: str | None = Field(examples=["the key is unknown, disabled or revoked"])


class ProviderSyncReply(Reply):
    """The last sync of the provider's models; `failure` is null while syncs work."""

    synced_at: Instant | None
    models: int
    failed_at: Instant | None
    failure: str | None


class ProviderReply(Reply):
    """A provider. `key` is null until one is set, and `sync` until one was tried."""

    name: str = Field(examples=["openai"])
    dialect: DialectName
    base_url: str | None
    state: ProviderState
    model_prefix: str
    is_free: bool
    needs_key: bool
    key: ProviderKeyReply | None
    sync: ProviderSyncReply | None

    @model_validator(mode="before")
    @classmethod
    def _read_listing(cls, listing: Any) -> Any:
        if not isinstance(listing, ProviderListing):
            return listing
        provider = listing.provider
        return {
            "name": provider.id,
            "dialect": provider.dialect.name,
            "base_url": provider.base_url,
            "state": provider.state,
            "model_prefix": provider.model_prefix,
            "is_free": provider.is_free,
            "needs_key": provider.dialect.needs_key,
            "key": listing.key,
            "sync": listing.sync,
        }


class ProviderListReply(Reply):
    """All providers."""

    data: list[ProviderReply]


class ProviderBody(Body):
    """A provider to make. Base URL and prefix have the defaults of the dialect."""

    name: Annotated[
        str,
        Like(PROVIDER_ID, "a name has up to 40 of a-z, 0-9, _ and - and begins with a letter"),
        Field(examples=["openai"]),
    ]
    dialect: Annotated[DialectName, Field(strict=False)]
    base_url: BaseUrl | None = None
    model_prefix: ModelPrefix | None = None
    is_free: IsFree = False


class ProviderChangeBody(Body):
    """The terms to change; those that are left out stay."""

    base_url: Annotated[BaseUrl | None, NotNull()] = None
    model_prefix: Annotated[ModelPrefix | None, NotNull()] = None
    is_free: Annotated[IsFree | None, NotNull()] = None


class ProviderKeyBody(Body):
    """A key to call the provider with. It is sealed at once and never shown again."""

    force: Annotated[
        bool, Field(description="Store the key without asking the provider whether it works")
    ] = False

    key: ProviderKeyText


class ProviderCheckReply(Reply):
    """The result of a check. `problem` says what is wrong and what to do; null: nothing is."""

    ok: bool
    problem: str | None
    models: int = Field(description="Models that the provider lists")


class ListedPriceBody(Body):
    """A price. Kinds of tokens without a price cost what a token of the prompt costs.

    Without `effective_from` it takes effect now.
    """

    model: Annotated[
        str,
        Like(r"[!-~]+", "a model's id has visible ASCII characters only"),
        Field(min_length=1, max_length=200, examples=["vllm/llama-3.1-8b"]),
    ]
    prompt_usd_per_million: PerMillion
    completion_usd_per_million: PerMillion
    cache_read_usd_per_million: PerMillion | None = None
    cache_write_usd_per_million: PerMillion | None = None
    reasoning_usd_per_million: PerMillion | None = None
    request_usd: PerRequest | None = None
    effective_from: FutureInstant | None = None

    def to_price(self) -> ListedPrice:
        """Return the price in pico-dollars."""
        return ListedPrice(
            self.model,
            self.effective_from,
            _per_token(self.prompt_usd_per_million),
            _per_token(self.completion_usd_per_million),
            request_picos=int(Decimal(self.request_usd or "0") * PICOS_PER_USD),
            reasoning_picos=_per_token(self.reasoning_usd_per_million or "0"),
            cache_read_picos=_per_token_or_none(self.cache_read_usd_per_million),
            cache_write_picos=_per_token_or_none(self.cache_write_usd_per_million),
        )


class PriceListBody(Body):
    """An administrator's price list of a provider. All of it is stored, or nothing."""

    prices: Annotated[list[ListedPriceBody], Field(min_length=1, max_length=MOST_PRICES)]
    allow_zero: Annotated[bool, Field(description="Allow prices of nothing")] = False


class PriceImportReply(Reply):
    """The numbers of prices that are new, and of those that were in force already."""

    new: int
    unchanged: int


class KnownPriceReply(Reply):
    """The price of a model in force. Null: such tokens cost what a token of the prompt costs."""

    model: str
    effective_from: Instant
    origin: PriceOrigin = Field(description="Who says so")
    prompt_usd_per_million: str = Field(examples=["0.15"])
    completion_usd_per_million: str
    cache_read_usd_per_million: str | None
    cache_write_usd_per_million: str | None
    request_usd: str


class KnownPriceListReply(Reply):
    """The prices of a provider that are in force."""

    data: list[KnownPriceReply]


@router.get("", summary="List providers")
async def list_providers(providers: FromProviders) -> ProviderListReply:
    """List the providers; those with a key show a hint of it."""
    return ProviderListReply.model_validate({"data": await providers.list_all()})


@router.post("", status_code=201, summary="Make a provider")
async def create_provider(
    body: ProviderBody, actor: FromAdministrator, providers: FromProviders
) -> ProviderReply:
    """Make a provider; its models are offered once they are listed and have prices."""
    made = await providers.create(
        body.name, body.dialect, body.base_url, body.model_prefix, body.is_free, actor
    )
    return ProviderReply.model_validate(made)


@router.get("/{provider}", summary="Show a provider")
async def get_provider(provider: ProviderPath, providers: FromProviders) -> ProviderReply:
    """Show a provider with the state of its key and of its catalogue."""
    return ProviderReply.model_validate(await providers.get(provider))


@router.patch("/{provider}", summary="Change a provider")
async def change_provider(
    provider: ProviderPath,
    body: ProviderChangeBody,
    actor: FromAdministrator,
    providers: FromProviders,
) -> ProviderReply:
    """Change the terms that the body names."""
    changes = body.model_dump(include=body.model_fields_set)
    return ProviderReply.model_validate(await providers.change(provider, changes, actor))


@router.delete("/{provider}", status_code=204, summary="Delete a provider")
async def delete_provider(
    provider: ProviderPath, actor: FromAdministrator, providers: FromProviders
) -> None:
    """Delete a provider with its keys; refused while a route or an open request needs it."""
    await providers.delete(provider, actor)


@router.post("/{provider}/enable", summary="Enable a provider")
async def enable_provider(
    provider: ProviderPath, actor: FromAdministrator, providers: FromProviders
) -> ProviderReply:
    """Let requests go to the provider again."""
    found = await providers.set_state(provider, ProviderState.ENABLED, actor)
    return ProviderReply.model_validate(found)


@router.post("/{provider}/disable", summary="Disable a provider")
async def disable_provider(
    provider: ProviderPath, actor: FromAdministrator, providers: FromProviders
) -> ProviderReply:
    """Send no further requests to the provider; requests under way go on."""
    found = await providers.set_state(provider, ProviderState.DISABLED, actor)
    return ProviderReply.model_validate(found)


@router.post("/{provider}/check", summary="Check a provider")
async def check_provider(provider: ProviderPath, providers: FromProviders) -> ProviderCheckReply:
    """Ask the provider for its models, with our key; the call costs nothing."""
    check = await providers.check(provider)
    return ProviderCheckReply(ok=check.problem is None, problem=check.problem, models=check.models)


@router.put("/{provider}/key", status_code=204, summary="Set a provider's key")
async def put_provider_key(
    provider: ProviderPath,
    body: ProviderKeyBody,
    actor: FromAdministrator,
    providers: FromProviders,
) -> None:
    """Store the key with which all later requests are sent to the provider.

    The provider is asked first, by a call that costs nothing; a key that it refuses is not stored.
    """
    await providers.set_key(provider, SecretText(body.key.get_secret_value()), body.force, actor)


@router.get("/{provider}/prices", summary="List a provider's prices")
async def list_provider_prices(
    provider: ProviderPath, providers: FromProviders, catalogue: FromCatalogue
) -> KnownPriceListReply:
    """List the prices of a provider that are in force, and who says so."""
    await providers.get(provider)
    prices = await catalogue.load_prices(provider)
    return KnownPriceListReply(
        data=[
            KnownPriceReply(
                model=model,
                effective_from=known.price.effective_from,
                origin=known.origin,
                prompt_usd_per_million=_usd_per_million(known.price.prompt_picos),
                completion_usd_per_million=_usd_per_million(known.price.completion_picos),
                cache_read_usd_per_million=_usd_per_million_or_none(known.price.cache_read_picos),
                cache_write_usd_per_million=_usd_per_million_or_none(known.price.cache_write_picos),
                request_usd=format_usd(known.price.request_picos),
            )
            for model, known in prices.items()
        ]
    )


@router.post("/{provider}/prices", summary="Import prices of a provider")
async def import_provider_prices(
    provider: ProviderPath,
    body: PriceListBody,
    actor: FromAdministrator,
    providers: FromProviders,
) -> PriceImportReply:
    """Store a price list, which precedes every other source of prices."""
    prices = [one.to_price() for one in body.prices]
    return PriceImportReply.model_validate(
        await providers.import_prices(provider, prices, body.allow_zero, actor)
    )


def _per_token(usd_per_million: str) -> int:
    return int(Decimal(usd_per_million) * PICOS_PER_USD) // TOKENS_PER_MILLION


def _per_token_or_none(usd_per_million: str | None) -> int | None:
    return None if usd_per_million is None else _per_token(usd_per_million)


def _usd_per_million(picos: int) -> str:
    return format_usd(picos * TOKENS_PER_MILLION)


def _usd_per_million_or_none(picos: int | None) -> str | None:
    return None if picos is None else _usd_per_million(picos)
