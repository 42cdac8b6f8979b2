"""Models: the catalogue with prices, in the shape of OpenRouter and OpenAI.

Anybody may ask. With a credential, the list has the models that it may use, at the prices that it
pays.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

from cachetools import LRUCache
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from meter.api.authentication import Caller, FromCallerIfAny
from meter.api.inference import BASES
from meter.api.problems import ProblemError
from meter.api.public.model_description import ListedModel
from meter.clock import Clock
from meter.identity.principal import Principal
from meter.pricing.catalogue_store import ModelListing, PostgresCatalogue
from meter.pricing.prices import DEFAULT_PROVIDER
from meter.routing.model_rights import may_use
from meter.routing.nearest_model import NearestModels
from meter.routing.table import RoutingTable
from meter.routing.table_store import RoutingStore

# Anybody may ask without a key, so the database is asked at most once in this time.
REMEMBERED_S: Final = 2.0
MAX_AGE_S: Final = 60
# Lists of different markups and lists of models that are kept, each some 300 KB.
MOST_RENDERED: Final = 32
MOST_MODELS_A_PAGE: Final = 1_000
MOST_OFFSET: Final = 1_000_000
# Names below `/models` at OpenRouter; a model of such a name takes precedence.
_COUNT: Final = "count"
_OF_USER: Final = "user"

_NEAREST: Final = NearestModels()

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])

router = APIRouter(tags=["Models"])


class PricingReply(BaseModel):
    """US dollars per unit (token, request, image, ...), as decimal strings."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(examples=["0.00000015"])
    completion: str = Field(examples=["0.0000006"])


class ArchitectureReply(BaseModel):
    """The kinds of content that go in and come out."""

    model_config = ConfigDict(extra="allow")

    modality: str | None = Field(examples=["text+image->text"])
    input_modalities: list[str]
    output_modalities: list[str]
    instruct_type: str | None


class TopProviderReply(BaseModel):
    """The limits of the provider that is asked first."""

    model_config = ConfigDict(extra="allow")

    context_length: int
    max_completion_tokens: int
    is_moderated: bool


class ModelLinksReply(BaseModel):
    """The path with more about a model."""

    details: str = Field(examples=["/v1/models/openai/gpt-4o-mini"])


class ModelReply(BaseModel):
    """A model. Further members of the provider are passed on; `alias_of` stands with an alias."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(examples=["openai/gpt-4o-mini"])
    object: str = Field(examples=["model"])
    created: int
    owned_by: str = Field(examples=["openai"])
    name: str
    canonical_slug: str
    context_length: int
    architecture: ArchitectureReply
    pricing: PricingReply
    top_provider: TopProviderReply
    supported_parameters: list[str]
    supported_voices: list[str] | None
    per_request_limits: dict[str, float] | None
    default_parameters: dict[str, float] | None
    links: ModelLinksReply


class PageLinksReply(BaseModel):
    """The next page of a list; null at its end."""

    next: str | None


class ModelListReply(BaseModel):
    """The catalogue."""

    object: str = Field(examples=["list"])
    data: list[ModelReply]
    links: PageLinksReply
    total_count: int


class DescribedModelReply(BaseModel):
    """One model, as OpenRouter answers."""

    data: ModelReply


class ModelPageQuery(BaseModel):
    """The part of the list to answer; without a limit, all of it."""

    limit: Annotated[int | None, Field(ge=1, le=MOST_MODELS_A_PAGE)] = None
    offset: Annotated[int, Field(ge=0, le=MOST_OFFSET)] = 0


class _Body(NamedTuple):
    """A reply, and the tag by which a client that has it already asks."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "_Body":
        return cls(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class _Rendered:
    """Every model as bytes, by the name that requests use, in the order of the names."""

    def __init__(self, by_id: Mapping[str, bytes]) -> None:
        self.by_id = by_id
        self._whole = self._render(0, None, None)

    def page(self, query: ModelPageQuery, path: str) -> _Body:
        """Return a part of the list, with the path of the next part."""
        end = len(self.by_id) if query.limit is None else query.offset + query.limit
        if end < len(self.by_id):
            following = f"{path}?limit={query.limit}&offset={end}"
            return self._render(query.offset, end, following)
        return self._render(query.offset, None, None) if query.offset else self._whole

    def _render(self, start: int, end: int | None, following: str | None) -> _Body:
        data = b",".join(list(self.by_id.values())[start:end])
        tail = f'],"links":{json.dumps({"next": following})},"total_count":{len(self.by_id)}}}'
        return _Body.of(b'{"object":"list","data":[' + data + tail.encode())


class RenderedCatalogue:
    """A cache of the catalogue as bytes, which reads the database in one request at a time."""

    def __init__(self, catalogue: PostgresCatalogue, routing: RoutingStore, clock: Clock) -> None:
        self._catalogue = catalogue
        self._routing = routing
        self._clock = clock
        self._lock = asyncio.Lock()
        self._listed: Sequence[ListedModel] | None = None
        self._table = RoutingTable({})
        self._rendered: LRUCache[tuple[int, tuple[frozenset[str], ...]], _Rendered] = LRUCache(
            MOST_RENDERED
        )
        self._read_at_s = 0.0

    async def get(self, principal: Principal | None) -> _Rendered:
        """Return the models that a principal may use, at its prices; all of them for None.

        They are at most `REMEMBERED_S` old. Raises StoreUnavailable.
        """
        async with self._lock:
            age_s = self._clock.monotonic_s() - self._read_at_s
            if self._listed is None or age_s >= REMEMBERED_S:
                await self._read()
        assert self._listed is not None
        terms = (0, ()) if principal is None else (principal.markup_bps, principal.model_lists)
        rendered = self._rendered.get(terms)
        if rendered is None:
            rendered = self._rendered[terms] = _Rendered(
                {
                    one.name: json.dumps(one.describe(terms[0])).encode()
                    for one in self._listed
                    if principal is None
                    or may_use(principal, one.model.id, one.name, self._table.aliases.get(one.name))
                }
            )
        return rendered

    async def _read(self) -> None:
        """Read the catalogue, and forget what was rendered if it is another."""
        listings = await self._catalogue.load_listings()
        listed = {
            one.model.id: one.model
            for one in listings
            if one.model.price.provider == DEFAULT_PROVIDER
        }
        offers = await self._catalogue.load_offers()
        self._table = (await self._routing.load(listed, offers)).table
        offered = list(_offered(listings, self._table))
        if offered != self._listed:
            self._rendered.clear()
        self._listed = offered
        self._read_at_s = self._clock.monotonic_s()


def _get(
    path: str, summary: str, reply: type[BaseModel], operation_id: str
) -> Callable[[Endpoint], Endpoint]:
    """Return what serves reads of a path below each of the bases."""

    def serve(endpoint: Endpoint) -> Endpoint:
        for base, suffix, note in reversed(BASES):
            router.add_api_route(
                f"{base}/{path}",
                endpoint,
                methods=["GET"],
                summary=f"{summary}{note}",
                responses={200: {"model": reply}},
                operation_id=f"{operation_id}{suffix}",
            )
        return endpoint

    return serve


@_get("models", "List models", ModelListReply, "list_models")
async def list_models(
    request: Request, caller: FromCallerIfAny, query: Annotated[ModelPageQuery, Query()]
) -> Response:
    """List all models and aliases that may be called, with the prices in force.

    Without a credential: every model, with prices before markup. With one: the models that it may
    use, with the markup of its account. The price of a model that several providers offer is that
    of the one that is asked first.
    """
    rendered = await _models_of(request, caller)
    return _answer(request, rendered.page(query, request.url.path), caller)


@_get("models/{model_id:path}", "Get a model", ModelReply, "get_model")
async def get_model(model_id: str, request: Request, caller: FromCallerIfAny) -> Response:
    """Return one model. Slashes in its id may be written as they are, or as `%2F`.

    As at OpenRouter, `count` answers the number of models, and `user` the whole list.
    """
    rendered = await _models_of(request, caller)
    if model_id not in rendered.by_id:
        if model_id == _COUNT:
            counted = json.dumps({"data": {"count": len(rendered.by_id)}}).encode()
            return _answer(request, _Body.of(counted), caller)
        if model_id == _OF_USER:
            whole = rendered.page(ModelPageQuery(), request.url.path)
            return _answer(request, whole, caller)
    return _answer(request, _Body.of(_find(rendered, model_id)), caller)


@_get("model/{model_id:path}", "Describe a model", DescribedModelReply, "describe_model")
async def describe_model(model_id: str, request: Request, caller: FromCallerIfAny) -> Response:
    """Return one model in the member `data`, as OpenRouter's clients read it."""
    found = _find(await _models_of(request, caller), model_id)
    return _answer(request, _Body.of(b'{"data":' + found + b"}"), caller)


async def _models_of(request: Request, caller: Caller | None) -> _Rendered:
    catalogue: RenderedCatalogue = request.app.state.catalogue
    return await catalogue.get(None if caller is None else caller.principal)


def _find(rendered: _Rendered, model_id: str) -> bytes:
    found = rendered.by_id.get(model_id)
    if found is None:
        nearest = _NEAREST.find(model_id, rendered.by_id.keys(), lambda _: True)
        help_ = "see GET /v1/models" if nearest is None else f"did you mean '{nearest}'?"
        raise ProblemError(404, "model_not_found", f"there is no such model; {help_}")
    return found


def _answer(request: Request, body: _Body, caller: Caller | None) -> Response:
    kept_by = "public" if caller is None else "private"
    headers = {
        "ETag": body.etag,
        "Cache-Control": f"{kept_by}, max-age={MAX_AGE_S}",
        "Vary": "Authorization, X-Api-Key",
    }
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if body.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(body.content, headers=headers, media_type="application/json")


def _offered(listings: list[ModelListing], table: RoutingTable) -> Iterator[ListedModel]:
    """Yield every model and alias that somebody may serve, as the one asked first serves it."""
    listing_of = {one.model.id: one.listing for one in listings}
    for name, model in sorted(table.models.items()):
        alias, ways = table.aliases.get(name), table.ways(model.id)
        if not ways or (alias is not None and alias.is_redirect):
            continue
        served = ways[0].model
        listing = listing_of.get(model.id, {})
        yield ListedModel(name, served, listing, None if alias is None else model.id)
