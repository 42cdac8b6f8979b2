"""The models on offer, read from tables such as ``models.csv``, and ``vendors.csv``.

Token prices in the table are US dollars per million tokens, the others US dollars per
unit; an empty cell is zero, or not listed for the two cache prices. A tier of prices is
written ``TOKENS:PROMPT:COMPLETION``. ``-1`` is what
OpenRouter writes for a router whose price depends on the model it picks.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources

from tollkeeper.simulator.pricing import (
    PICOS_PER_USD,
    PICOS_PER_USD_PER_MILLION,
    Prices,
)

ROUTED_MODEL = "openai/gpt-4o-mini"
"""The model that a router such as ``openrouter/auto`` picks, always."""

_ENDPOINTS = {
    "embedding": "embeddings",
    "rerank": "rerank",
    "speech": "speech",
    "transcription": "transcriptions",
}
_REPLIES = {**{kind: kind for kind in _ENDPOINTS}, "embedding": "embeddings"}


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
    def endpoint(self) -> str | None:
        """The one endpoint that serves the model, by name; None for models that write text."""
        return _ENDPOINTS.get(self.kind)

    @property
    def replies(self) -> str:
        """The kind of its replies, as OpenRouter lists it."""
        return _REPLIES.get(self.kind, "text")

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
    def may_draw(self) -> bool:
        return self.prices.image_output_picos is not None

    @property
    def is_router(self) -> bool:
        return self.prices.prompt_picos < 0


class Catalogue:
    """Finds models by the names that requests use for them."""

    def __init__(self, models: Iterable[Model], to_id: Callable[[str], str]) -> None:
        """``to_id`` gives the id of a model that requests may call otherwise."""
        self._models = {model.id: model for model in models}
        self._to_id = to_id

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def find(self, model_id: str) -> Model | None:
        """The model that would serve ``model_id``, or None when there is no such model."""
        model = self._models.get(model_id) or self._models.get(self._to_id(model_id))
        if model is not None and model.is_router:
            return self._models[ROUTED_MODEL]
        return model


def read_models(name: str) -> Iterator[Model]:
    """The models of a table that ships with this package."""
    vendors = {row["vendor"]: row for row in _read_table("vendors.csv")}
    return (_from_row(row, vendors) for row in _read_table(name))


def _read_table(name: str) -> list[dict[str, str]]:
    table = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(table.splitlines()))


def _from_row(row: Mapping[str, str], vendors: Mapping[str, Mapping[str, str]]) -> Model:
    unlisted = {"display": "Open", "provider": "Local"}
    vendor = vendors.get(row["id"].partition("/")[0], unlisted)
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
            image_output_picos=_per_token(row.get("image_output") or ""),
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
