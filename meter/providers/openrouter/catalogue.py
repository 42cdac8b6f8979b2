"""Reads OpenRouter's catalogue, `GET /models`: decimal prices in, pico-dollars out."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import aiohttp

from meter.errors import InvalidAmount, ProviderUnavailable
from meter.money import picos_from_decimal
from meter.pricing.prices import OfferedModel
from meter.providers.fetching import Bounds, fetch
from meter.providers.provider import OfferedCatalogue
from meter.sealing import SecretText

PATH: Final = "/models"
BOUNDS: Final = Bounds(timeout_s=20.0, body_bytes=32 * 1024 * 1024)
MAX_MODELS: Final = 20_000
MAX_MODEL_ID_CHARS: Final = 200
# No model reads more: a larger number is an error of the provider.
MAX_TOKENS: Final = 2**40
# What a model may read or write when the catalogue names no limit of its own.
ASSUMED_CONTEXT_TOKENS: Final = 131_072
# Members of a model that `/v1/models` passes on to clients.
_LISTED = (
    "canonical_slug",
    "created",
    "description",
    "architecture",
    "top_provider",
    "supported_parameters",
)


async def fetch_catalogue(
    session: aiohttp.ClientSession, base_url: str, key: SecretText | None
) -> OfferedCatalogue:
    """Fetch and read the catalogue.

    Raises ProviderUnavailable when the provider does not answer, answers too much, or answers
    something that is no catalogue.
    """
    fetched = await fetch(session, base_url, PATH, key, BOUNDS)
    if fetched.status != 200:
        raise ProviderUnavailable(f"GET {PATH} answered {fetched.status}")
    return read_catalogue(fetched.body)


def read_catalogue(body: bytes) -> OfferedCatalogue:
    """Read the reply of `GET /models`. Raises ProviderUnavailable when it is no catalogue."""
    try:
        listed = json.loads(body, parse_float=Decimal)["data"]
    except (ValueError, KeyError, TypeError, RecursionError, InvalidOperation) as error:
        raise ProviderUnavailable("GET /models answered no catalogue") from error
    if not isinstance(listed, list) or len(listed) > MAX_MODELS:
        raise ProviderUnavailable("GET /models answered no catalogue")
    offered = [_offered(model) for model in listed]
    by_id = {model.id: model for model in offered if model is not None}
    return OfferedCatalogue(tuple(by_id.values()), sum(model is None for model in offered))


def _offered(model: object) -> OfferedModel | None:
    """Return one model; None when it cannot be priced, so that it is not offered at all."""
    if not isinstance(model, dict) or not isinstance(model.get("pricing"), dict):
        return None
    model_id = model.get("id")
    if not isinstance(model_id, str) or not 1 <= len(model_id) <= MAX_MODEL_ID_CHARS:
        return None
    if not model_id.isprintable():
        return None
    try:
        prices = {name: _picos(text) for name, text in model["pricing"].items()}
    except (InvalidAmount, InvalidOperation):
        return None
    prompt, completion = prices.get("prompt"), prices.get("completion")
    if prompt is None or completion is None:
        return None
    top = model.get("top_provider")
    top_provider: Mapping[str, Any] = top if isinstance(top, dict) else {}
    context_length = _tokens(model.get("context_length")) or ASSUMED_CONTEXT_TOKENS
    try:
        listing = {name: _storable(model[name]) for name in _LISTED if name in model}
        name = _storable_text(str(model.get("name") or model_id))
    except RecursionError:
        return None
    return OfferedModel(
        id=model_id,
        name=name,
        context_length=max(context_length, _tokens(top_provider.get("context_length")) or 0),
        max_completion_tokens=(
            _tokens(top_provider.get("max_completion_tokens")) or context_length
        ),
        prompt_picos=prompt,
        completion_picos=completion,
        request_picos=prices.get("request") or 0,
        image_picos=prices.get("image") or 0,
        web_search_picos=prices.get("web_search") or 0,
        reasoning_picos=prices.get("internal_reasoning") or 0,
        cache_read_picos=prices.get("input_cache_read"),
        cache_write_picos=prices.get("input_cache_write"),
        listing=listing,
    )


def _picos(price: object) -> int | None:
    """Return a price per unit. Raises InvalidAmount for a negative one, which means «varies»."""
    if price is None or isinstance(price, dict | list | bool):
        return None
    picos = picos_from_decimal(Decimal(str(price)))
    if picos < 0:
        raise InvalidAmount("the price varies")
    return picos


def _tokens(value: object) -> int | None:
    return min(value, MAX_TOKENS) if type(value) is int and value > 0 else None


def _storable(value: Any) -> Any:
    """A member of the listing as Postgres keeps JSON: one odd model must not stop the sync."""
    if isinstance(value, str):
        return _storable_text(value)
    if isinstance(value, Decimal | float):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable_text(name): _storable(item) for name, item in value.items()}
    return value


def _storable_text(text: str) -> str:
    """Return the text without NUL and lone surrogates, which Postgres cannot store."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
