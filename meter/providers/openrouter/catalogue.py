"""Reads OpenRouter's catalogue, `GET /models`: decimal prices in, pico-dollars out.

The price members that are understood are a closed list (R6). A model with another price is
withheld: it is listed with a reason and not offered.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import aiohttp

from meter.errors import InvalidAmount, ProviderUnavailable
from meter.money import picos_from_decimal
from meter.pricing.prices import (
    ASSUMED_CONTEXT_TOKENS,
    FREE_SUFFIX,
    TIER_STARTS_AT,
    OfferedModel,
    WithheldModel,
)
from meter.providers.fetching import Bounds, fetch
from meter.providers.provider import OfferedCatalogue
from meter.sealing import SecretText

PATH: Final = "/models"
# Without it, only models that reply with text are listed.
ALL_MODALITIES: Final = "all"
BOUNDS: Final = Bounds(timeout_s=20.0, body_bytes=32 * 1024 * 1024)
MAX_MODELS: Final = 20_000
MAX_MODEL_ID_CHARS: Final = 200
# No model reads more: a larger number is an error of the provider.
MAX_TOKENS: Final = 2**40
MAX_TIERS: Final = 16
MAX_REASON_CHARS: Final = 300
# These models search the web although no request asks them to.
SEARCHING_MODELS: Final = re.compile(r"^perplexity/sonar|-search-(preview|api)\b")
# No provider documents more searches for one request of a model that searches unasked.
UNASKED_SEARCHES: Final = 10
# These search, and think, until they are content: no documented limit bounds their bill.
UNLIMITED_MODELS: Final = re.compile(r"-deep-research\b")
# Members of a model that `/v1/models` passes on to clients.
_LISTED = (
    "canonical_slug",
    "created",
    "description",
    "architecture",
    "top_provider",
    "supported_parameters",
    "per_request_limits",
    "default_parameters",
    "supported_voices",
    "hugging_face_id",
    "knowledge_cutoff",
    "expiration_date",
    "reasoning",
)
# The price members that are understood, and the names that they have here.
_PRICES: Final[Mapping[str, str]] = {
    "prompt": "prompt_picos",
    "completion": "completion_picos",
    "request": "request_picos",
    "image": "image_picos",
    "web_search": "web_search_picos",
    "internal_reasoning": "reasoning_picos",
    "input_cache_read": "cache_read_picos",
    "input_cache_write": "cache_write_picos",
    "input_cache_write_1h": "cache_write_1h_picos",
    "image_token": "image_token_picos",
    "image_output": "image_output_picos",
    "audio": "audio_picos",
    "audio_output": "audio_output_picos",
    "input_audio_cache": "audio_cache_picos",
}
_OVERRIDES: Final = ("overrides", "pricing_overrides")
# The prices that the kinds of a reply need.
_REPLIES: Final[Mapping[str, str | None]] = {
    "text": None,
    "embeddings": None,
    "image": "image_output_picos",
    "audio": "audio_output_picos",
    # Searches, characters and seconds of sound: whether they have a price is asked with each
    # request, because an administrator may have set one.
    "rerank": None,
    "speech": None,
    "transcription": None,
}
# Nothing bounds the tokens of these.
_UNLIMITED_REPLIES: Final = frozenset({"speech", "transcription"})


class _NotUnderstoodError(Exception):
    """A model cannot be priced; the message is the reason."""


async def fetch_catalogue(
    session: aiohttp.ClientSession, base_url: str, key: SecretText | None
) -> OfferedCatalogue:
    """Fetch and read the catalogue.

    Raises ProviderUnavailable when the provider does not answer, answers too much, or answers
    something that is no catalogue.
    """
    fetched = await fetch(session, base_url, PATH, key, BOUNDS, output_modalities=ALL_MODALITIES)
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
    offered: dict[str, OfferedModel] = {}
    withheld: dict[str, WithheldModel] = {}
    for place, entry in enumerate(listed):
        model_id = entry.get("id") if isinstance(entry, dict) else None
        if (
            not isinstance(model_id, str)
            or not 1 <= len(model_id) <= MAX_MODEL_ID_CHARS
            or not model_id.isprintable()
        ):
            named = f"entry {place}"
            withheld[named] = WithheldModel(named, "The entry has no id that can be used.")
            continue
        try:
            offered[model_id] = _offered(model_id, entry)
        except _NotUnderstoodError as error:
            reason = _storable_text(str(error))[:MAX_REASON_CHARS]
            withheld[model_id] = WithheldModel(model_id, reason)
    # Of two entries for one model, the one that is not understood decides.
    models = tuple(model for model in offered.values() if model.id not in withheld)
    return OfferedCatalogue(models, tuple(withheld.values()))


def _offered(model_id: str, model: dict[str, Any]) -> OfferedModel:
    """Return one model. Raises _NotUnderstoodError when it cannot be priced."""
    pricing = model.get("pricing")
    if not isinstance(pricing, dict):
        raise _NotUnderstoodError("It lists no prices.")
    prices = _read_prices(pricing)
    if "prompt_picos" not in prices or "completion_picos" not in prices:
        raise _NotUnderstoodError("It lists no price of 'prompt' or of 'completion'.")
    overrides = [
        entry
        for owner in (pricing, model)
        for name in _OVERRIDES
        if owner.get(name) is not None
        for entry in _list(owner[name], name)
    ]
    tiers = _read_tiers(overrides, prices)
    _require_priced_replies(model_id, model, prices)
    top = model.get("top_provider")
    top_provider: Mapping[str, Any] = top if isinstance(top, dict) else {}
    context_length = _tokens(model.get("context_length")) or ASSUMED_CONTEXT_TOKENS
    try:
        listing = {name: _storable(model[name]) for name in _LISTED if name in model}
        name = _storable_text(str(model.get("name") or model_id))
    except RecursionError as error:
        raise _NotUnderstoodError("Its description is nested too deeply.") from error
    flat = ("request_picos", "image_picos", "web_search_picos", "reasoning_picos")
    optional = [name for name in _PRICES.values() if name not in flat]
    return OfferedModel(
        id=model_id,
        name=name,
        context_length=max(context_length, _tokens(top_provider.get("context_length")) or 0),
        max_completion_tokens=(
            _tokens(top_provider.get("max_completion_tokens")) or context_length
        ),
        listing=listing,
        tiers=tiers,
        unasked_searches=_count_unasked_searches(model_id, prices),
        **{name: prices.get(name, 0) for name in flat},  # type: ignore[arg-type]
        **{name: prices.get(name) for name in optional},  # type: ignore[arg-type]
    )


def _read_prices(owner: Mapping[str, Any]) -> dict[str, int]:
    """Return the listed prices by the names that they have here. Raises _NotUnderstoodError."""
    prices: dict[str, int] = {}
    for name, value in owner.items():
        if name in _OVERRIDES or value is None:
            continue
        if name == "discount":
            # The provider takes it off: without it the bound stays a bound.
            if not 0 <= _number(name, value) <= 1:
                raise _NotUnderstoodError("Its 'discount' is not from 0 to 1.")
        elif name in _PRICES:
            prices[_PRICES[name]] = _picos(name, value)
        elif not _is_zero(value):
            raise _NotUnderstoodError(f"The price member '{name}' is not understood.")
    return prices


def _read_tiers(
    overrides: Sequence[Any], prices: Mapping[str, int]
) -> tuple[Mapping[str, int], ...]:
    """Return the prices of long prompts, shortest first.

    Of the overrides that apply, later ones replace earlier ones, price by price. An override under
    a condition that is not understood is ignored where it only lowers prices.
    """
    steps: list[tuple[int, dict[str, int]]] = []
    for entry in overrides:
        if not isinstance(entry, dict):
            raise _NotUnderstoodError("An override of its prices is no object.")
        known = {name: value for name, value in entry.items() if name in _PRICES}
        differing = _read_prices(known)
        unknown = [
            name
            for name, value in entry.items()
            if name not in _PRICES and name != TIER_STARTS_AT and not _is_zero(value)
        ]
        if unknown:
            if any(picos > prices.get(name, 0) for name, picos in differing.items()):
                raise _NotUnderstoodError(
                    f"'{unknown[0]}' of an override of its prices is not understood."
                )
            continue
        start = entry.get(TIER_STARTS_AT, 0)
        if type(start) is not int or not 0 <= start <= MAX_TOKENS:
            raise _NotUnderstoodError(f"'{TIER_STARTS_AT}' of an override is no number of tokens.")
        steps.append((start, differing))
    starts = sorted({start for start, _ in steps})
    if len(starts) > MAX_TIERS:
        raise _NotUnderstoodError(f"It has more than {MAX_TIERS} tiers of prices.")
    tiers = []
    for start in starts:
        tier = {TIER_STARTS_AT: start}
        for least, differing in steps:
            if least <= start:
                tier |= differing
        tiers.append(tier)
    return tuple(tiers)


def _require_priced_replies(
    model_id: str, model: Mapping[str, Any], prices: Mapping[str, int]
) -> None:
    """Raise _NotUnderstoodError when the model replies with a kind that has no listed price.

    Pictures and videos may have prices that stand in another listing, so that zeros here are
    believed only of a model whose name says that it is free.
    """
    architecture = model.get("architecture")
    kinds = architecture.get("output_modalities") if isinstance(architecture, dict) else None
    if kinds is None or (model_id.endswith(FREE_SUFFIX) and not any(prices.values())):
        return
    for kind in _list(kinds, "output_modalities"):
        if not isinstance(kind, str) or kind not in _REPLIES:
            raise _NotUnderstoodError(f"Its replies may be '{kind}', which has no price here.")
        if kind in _UNLIMITED_REPLIES and prices["completion_picos"]:
            raise _NotUnderstoodError(
                f"Its replies are '{kind}', billed by token, and nothing bounds their number."
            )
        needed = _REPLIES[kind]
        if needed is not None and needed not in prices:
            raise _NotUnderstoodError(
                f"Its replies may be '{kind}', and it lists no '{kind}_output'."
            )


def _count_unasked_searches(model_id: str, prices: Mapping[str, int]) -> int:
    """Return the most searches that a request bills unasked. Raises _NotUnderstoodError."""
    if UNLIMITED_MODELS.search(model_id):
        raise _NotUnderstoodError("It searches and thinks without a limit that bounds its cost.")
    if SEARCHING_MODELS.search(model_id) is None:
        return 0
    if prices.get("web_search_picos"):
        return UNASKED_SEARCHES
    if not prices.get("request_picos"):
        raise _NotUnderstoodError("It searches unasked, and lists no price of a search.")
    return 0


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _NotUnderstoodError(f"'{name}' is no list.")
    return value


def _number(name: str, value: object) -> Decimal:
    """Return a number, or the number that a text writes. Raises _NotUnderstoodError."""
    try:
        if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
            number = Decimal(value)
            if number.is_finite():
                return number
    except InvalidOperation:
        pass
    raise _NotUnderstoodError(f"The price of '{name}' is no number.")


def _picos(name: str, value: object) -> int:
    """Return a price per unit. Raises _NotUnderstoodError for a negative one: it varies."""
    number = _number(name, value)
    if number < 0:
        raise _NotUnderstoodError(f"The price of '{name}' is {number}, so it varies.")
    try:
        return picos_from_decimal(number)
    except InvalidAmount as error:
        raise _NotUnderstoodError(f"The price of '{name}' is out of range.") from error


def _is_zero(value: object) -> bool:
    """Return whether a member that is not understood says that nothing is charged."""
    if value is None or value == [] or value == {}:
        return True
    try:
        return _number("", value) == 0
    except _NotUnderstoodError:
        return False


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
