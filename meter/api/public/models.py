"""Models: the catalogue with prices, in the shape that OpenAI's clients read; public."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from meter.api.problems import ProblemError
from meter.clock import Clock
from meter.money import format_usd
from meter.pricing.catalogue_store import ModelListing, PostgresCatalogue
from meter.pricing.prices import DEFAULT_PROVIDER, TIER_STARTS_AT, Price
from meter.routing.table import RoutingTable
from meter.routing.table_store import RoutingStore

# Anybody may ask without a key, so the database is asked at most once in this time.
REMEMBERED_S: Final = 2.0
MAX_AGE_S: Final = 60
_PASSED_ON: Final = (
    "canonical_slug",
    "description",
    "architecture",
    "supported_parameters",
    "per_request_limits",
)

router = APIRouter(tags=["Models"])


class PricingReply(BaseModel):
    """US dollars per unit (token, request, image, ...), as decimal strings, before markup."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(examples=["0.00000015"])
    completion: str = Field(examples=["0.0000006"])


class ModelReply(BaseModel):
    """A model. Further members of the provider are passed on; `alias_of` stands with an alias."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(examples=["openai/gpt-4o-mini"])
    object: str = Field(examples=["model"])
    created: int
    owned_by: str = Field(examples=["openai"])
    name: str
    context_length: int
    pricing: PricingReply


class ModelListReply(BaseModel):
    """The catalogue."""

    object: str = Field(examples=["list"])
    data: list[ModelReply]


@dataclass(frozen=True, slots=True)
class _Rendered:
    listing: bytes
    etag: str
    by_id: Mapping[str, bytes]


class RenderedCatalogue:
    """A cache of the catalogue as bytes, which reads the database in one request at a time."""

    def __init__(self, catalogue: PostgresCatalogue, routing: RoutingStore, clock: Clock) -> None:
        self._catalogue = catalogue
        self._routing = routing
        self._clock = clock
        self._lock = asyncio.Lock()
        self._rendered: _Rendered | None = None
        self._read_at_s = 0.0

    async def get(self) -> _Rendered:
        """Return the rendered catalogue, at most `REMEMBERED_S` old. Raises StoreUnavailable."""
        async with self._lock:
            age_s = self._clock.monotonic_s() - self._read_at_s
            if self._rendered is None or age_s >= REMEMBERED_S:
                listings = await self._catalogue.load_listings()
                listed = {
                    one.model.id: one.model
                    for one in listings
                    if one.model.price.provider == DEFAULT_PROVIDER
                }
                offers = await self._catalogue.load_offers()
                routing = await self._routing.load(listed, offers)
                self._rendered = _render(listings, routing.table)
                self._read_at_s = self._clock.monotonic_s()
            return self._rendered


@router.get(
    "/v1/models",
    summary="List models",
    responses={200: {"model": ModelListReply}},
    operation_id="list_models",
)
@router.get(
    "/api/v1/llm/models",
    summary="List models (at the path of the system that this one replaces)",
    responses={200: {"model": ModelListReply}},
    operation_id="list_models_at_former_path",
)
async def list_models(request: Request) -> Response:
    """List all models and aliases that may be called, with the prices in force.

    The price of a model that several providers offer is that of the one that is asked first.
    """
    rendered = await _catalogue(request).get()
    return _answer(request, rendered.listing, rendered.etag)


@router.get(
    "/v1/models/{model_id:path}",
    summary="Get a model",
    responses={200: {"model": ModelReply}},
    operation_id="get_model",
)
@router.get(
    "/api/v1/llm/models/{model_id:path}",
    summary="Get a model (at the path of the system that this one replaces)",
    responses={200: {"model": ModelReply}},
    operation_id="get_model_at_former_path",
)
async def get_model(model_id: str, request: Request) -> Response:
    """Return one model. Slashes in its id may be written as they are, or as `%2F`."""
    found = (await _catalogue(request).get()).by_id.get(model_id)
    if found is None:
        raise ProblemError(404, "model_not_found", "there is no such model; see GET /v1/models")
    return _answer(request, found, _etag(found))


def _catalogue(request: Request) -> RenderedCatalogue:
    catalogue: RenderedCatalogue = request.app.state.catalogue
    return catalogue


def _answer(request: Request, body: bytes, etag: str) -> Response:
    headers = {"ETag": etag, "Cache-Control": f"public, max-age={MAX_AGE_S}"}
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _render(listings: list[ModelListing], table: RoutingTable) -> _Rendered:
    """Render every model and alias that somebody may serve, as the one asked first serves it."""
    listing_of = {one.model.id: one.listing for one in listings}
    by_id = {}
    for name, model in sorted(table.models.items()):
        alias, ways = table.aliases.get(name), table.ways(model.id)
        if not ways or (alias is not None and alias.is_redirect):
            continue
        listed = _to_openai(ModelListing(ways[0].model, listing_of.get(model.id, {})))
        if alias is not None:
            listed |= {"id": name, "name": name, "alias_of": model.id}
        by_id[name] = json.dumps(listed).encode()
    body = b'{"object":"list","data":[' + b",".join(by_id.values()) + b"]}"
    return _Rendered(body, _etag(body), by_id)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _to_openai(listed: ModelListing) -> dict[str, Any]:
    model, listing = listed.model, listed.listing
    created = listing.get("created")
    return {
        "id": model.id,
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": model.id.partition("/")[0].lstrip("~"),
        "name": model.name,
        "context_length": model.context_length,
        "pricing": {
            **_unit_prices(model.price),
            **({"overrides": _tiers(model.price)} if model.price.tiers else {}),
        },
        "top_provider": {
            **(listing.get("top_provider") or {}),
            "context_length": model.context_length,
            "max_completion_tokens": model.max_completion_tokens,
        },
        **{name: listing[name] for name in _PASSED_ON if name in listing},
    }


def _unit_prices(price: Price) -> dict[str, str]:
    """Return unit prices by the provider's names, without those that the provider does not list."""
    prices = {
        "prompt": price.prompt_picos,
        "completion": price.completion_picos,
        "request": price.request_picos,
        "image": price.image_picos,
        "web_search": price.web_search_picos,
        "internal_reasoning": price.reasoning_picos,
        "input_cache_read": price.cache_read_picos,
        "input_cache_write": price.cache_write_picos,
        "input_cache_write_1h": price.cache_write_1h_picos,
        "image_token": price.image_token_picos,
        "image_output": price.image_output_picos,
        "audio": price.audio_picos,
        "audio_output": price.audio_output_picos,
        "input_audio_cache": price.audio_cache_picos,
    }
    return {name: _decimal(picos) for name, picos in prices.items() if picos is not None}


def _tiers(price: Price) -> list[dict[str, str | int]]:
    """By the provider's name `overrides`: all prices from a length of the prompt on."""
    return [
        {TIER_STARTS_AT: tier.min_prompt_tokens, **_unit_prices(tier.price)} for tier in price.tiers
    ]


def _decimal(picos: int) -> str:
    """Return a unit price as providers write it: without trailing zeros."""
    return format_usd(picos).rstrip("0").rstrip(".")
