"""The models on offer, read from ``models.csv`` and ``vendors.csv``.

Token prices in the table are US dollars per million tokens, the others US dollars per
unit; an empty cell is zero, or not listed for the two cache prices. A tier of prices is
written ``TOKENS:PROMPT:COMPLETION``. ``-1`` is what
OpenRouter writes for a router whose price depends on the model it picks.
"""

import csv
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources

from tollkeeper.simulator.pricing import (
    PICOS_PER_USD,
    PICOS_PER_USD_PER_MILLION,
    Prices,
    to_usd,
)

ROUTED_MODEL = "openai/gpt-4o-mini"
"""The model that a router such as ``openrouter/auto`` picks, always."""
FIRST_CREATED_UNIX_S = 1_690_000_000
CREATED_SPAN_SECONDS = 70_000_000
IGNORED_SUFFIXES = (":nitro", ":floor", ":online")
"""Suffixes that change how a model is served, not which one."""

_PARAMETERS = (
    "frequency_penalty",
    "max_tokens",
    "presence_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "top_p",
)
_TOOL_PARAMETERS = ("tools", "tool_choice")
_REASONING_PARAMETERS = ("include_reasoning", "reasoning")


@dataclass(frozen=True, slots=True)
class Model:
    """One model as the catalogue lists it."""

    id: str
    display: str
    provider: str
    context_length: int
    max_completion_tokens: int | None
    kind: str
    features: frozenset[str]
    prices: Prices

    @property
    def is_embedding(self) -> bool:
        return self.kind == "embedding"

    @property
    def has_reasoning(self) -> bool:
        return "reasoning" in self.features

    @property
    def searches_unasked(self) -> bool:
        return "searches" in self.features

    @property
    def may_see_images(self) -> bool:
        return self.kind == "vision"

    @property
    def is_router(self) -> bool:
        return self.prices.prompt_picos < 0


class Catalogue:
    """Finds models by id and prints them as ``GET /models`` does."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.id: model for model in models}
        listing = {"data": [to_openrouter(model) for model in self]}
        self.body = json.dumps(listing, separators=(",", ":")).encode()

    @classmethod
    def load(cls) -> "Catalogue":
        """The catalogue that ships with this package."""
        vendors = {row["vendor"]: row for row in _read_table("vendors.csv")}
        return cls(_from_row(row, vendors) for row in _read_table("models.csv"))

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def find(self, model_id: str) -> Model | None:
        """The model that would serve ``model_id``, or None when there is no such model."""
        plain_id = model_id
        for suffix in IGNORED_SUFFIXES:
            plain_id = plain_id.removesuffix(suffix)
        model = self._models.get(model_id) or self._models.get(plain_id)
        if model is not None and model.is_router:
            return self._models[ROUTED_MODEL]
        return model


def to_openrouter(model: Model) -> dict[str, object]:
    """The model in the shape of OpenRouter's ``GET /models``."""
    vendor, _, slug = model.id.partition("/")
    inputs = ["text", "image"] if model.may_see_images else ["text"]
    outputs = ["embeddings"] if model.is_embedding else ["text"]
    parameters = ["dimensions", "encoding_format"]
    if not model.is_embedding:
        tools = _TOOL_PARAMETERS if "tools" in model.features else ()
        reasoning = _REASONING_PARAMETERS if model.has_reasoning else ()
        parameters = sorted([*_PARAMETERS, *tools, *reasoning])
    # The six prices that are always listed, and the cache prices of models that have them.
    listed = {
        "prompt": model.prices.prompt_picos,
        "completion": model.prices.completion_picos,
        "request": model.prices.request_picos,
        "image": model.prices.image_picos,
        "web_search": model.prices.web_search_picos,
        "internal_reasoning": model.prices.internal_reasoning_picos,
        "input_cache_read": model.prices.cache_read_picos,
        "input_cache_write": model.prices.cache_write_picos,
    }
    overrides = [
        {"min_prompt_tokens": start, "prompt": to_usd(prompt), "completion": to_usd(completion)}
        for start, prompt, completion in model.prices.tiers
    ]
    return {
        "id": model.id,
        "canonical_slug": model.id.removesuffix(":free"),
        "hugging_face_id": "",
        "name": f"{model.display}: {slug.replace('-', ' ').title()}",
        "created": FIRST_CREATED_UNIX_S + zlib.crc32(model.id.encode()) % CREATED_SPAN_SECONDS,
        "description": f"A simulated model in the manner of {vendor}.",
        "context_length": model.context_length,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
            "input_modalities": inputs,
            "output_modalities": outputs,
            "tokenizer": model.display,
            "instruct_type": None,
        },
        "pricing": {
            **{name: to_usd(picos) for name, picos in listed.items() if picos is not None},
            **({"overrides": overrides} if overrides else {}),
        },
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_completion_tokens,
            "is_moderated": "moderated" in model.features,
        },
        "per_request_limits": None,
        "supported_parameters": parameters,
    }


def _read_table(name: str) -> list[dict[str, str]]:
    table = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(table.splitlines()))


def _from_row(row: Mapping[str, str], vendors: Mapping[str, Mapping[str, str]]) -> Model:
    vendor = vendors[row["id"].partition("/")[0]]
    limit = row["max_completion_tokens"]
    if row["prompt"] == "-1":
        prices = Prices(prompt_picos=-PICOS_PER_USD, completion_picos=-PICOS_PER_USD)
    else:
        prices = Prices(
            prompt_picos=_per_token(row["prompt"]) or 0,
            completion_picos=_per_token(row["completion"]) or 0,
            request_picos=_picos(row["request"], PICOS_PER_USD) or 0,
            image_picos=_picos(row["image"], PICOS_PER_USD) or 0,
            web_search_picos=_picos(row["web_search"], PICOS_PER_USD) or 0,
            internal_reasoning_picos=_per_token(row["internal_reasoning"]) or 0,
            cache_read_picos=_per_token(row["input_cache_read"]),
            cache_write_picos=_per_token(row["input_cache_write"]),
            tiers=tuple(
                (int(start), _per_token(prompt) or 0, _per_token(completion) or 0)
                for start, prompt, completion in (tier.split(":") for tier in row["tiers"].split())
            ),
        )
    return Model(
        id=row["id"],
        display=vendor["display"],
        provider=vendor["provider"],
        context_length=int(row["context_length"]),
        max_completion_tokens=int(limit) if limit else None,
        kind=row["kind"],
        features=frozenset(row["features"].split()),
        prices=prices,
    )


def _per_token(cell: str) -> int | None:
    return _picos(cell, PICOS_PER_USD_PER_MILLION)


def _picos(cell: str, scale: int) -> int | None:
    """The cell in pico-dollars; ValueError when it has more than twelve decimals."""
    if not cell:
        return None
    picos = Decimal(cell) * scale
    if picos != int(picos):
        raise ValueError(f"{cell} is not a whole number of pico-dollars")
    return int(picos)
