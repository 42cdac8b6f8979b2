"""Prices, the upper bound of what a request may cost, and the cost of what it used.

Prices are pico-dollars per unit and effective from an instant. An estimate must never be below
the charge that follows (R6), so each part of it assumes the highest price that may apply.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from meter.money import MAX_PICOS, add_markup
from meter.usage.usage import TokenCounts

# Tokens that providers add to a prompt themselves: chat templates, tool preambles.
PROMPT_OVERHEAD_TOKENS: Final = 1_024


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one unit of a model, in pico-dollars, from `effective_from` on."""

    id: int
    model_id: str
    effective_from: datetime
    prompt_picos: int
    completion_picos: int
    request_picos: int = 0
    image_picos: int = 0
    web_search_picos: int = 0
    reasoning_picos: int = 0
    cache_read_picos: int | None = None
    cache_write_picos: int | None = None

    @property
    def is_free(self) -> bool:
        """Return whether every price of this model is zero."""
        return not any(
            (
                self.prompt_picos,
                self.completion_picos,
                self.request_picos,
                self.image_picos,
                self.web_search_picos,
                self.reasoning_picos,
                self.cache_write_picos,
            )
        )

    @property
    def dearest_prompt_picos(self) -> int:
        """Return the most that one prompt token can cost: plain, or of a cache."""
        return max(self.prompt_picos, self.cache_read_picos or 0, self.cache_write_picos or 0)

    @property
    def dearest_completion_picos(self) -> int:
        """Return the most that one completion token can cost, reasoning included."""
        return max(self.completion_picos, self.reasoning_picos)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the catalogue offers, with its price in force and its own limits."""

    id: str
    name: str
    context_length: int
    max_completion_tokens: int
    price: Price


@dataclass(frozen=True, slots=True)
class Demand:
    """The most that one request can ask of a provider, before any price is applied.

    `completion_tokens` bounds one choice; None where the request names no limit, so that a limit
    must be written into it. `extra_completion_tokens` may be billed beside each choice, whatever
    the limit.
    """

    prompt_tokens: int
    completion_tokens: int | None
    choices: int = 1
    extra_completion_tokens: int = 0
    images: int = 0
    web_searches: int = 0
    # The number of prompts that share `prompt_tokens`; each may fill the whole context.
    prompts: int = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """An upper bound of the charge: `fixed` plus `per_token` for each token of one choice.

    Both amounts include markup. `max_tokens` is the limit of the request or, without one, of the
    model. `min_tokens` is the least that is worth a hold; it equals `max_tokens` where the request
    names a limit. `flat_cost_picos` is the part of the cost, before markup, that does not depend on
    tokens.
    """

    price_id: int
    markup_bps: int
    fixed_picos: int
    per_token_picos: int
    max_tokens: int
    min_tokens: int
    flat_cost_picos: int


def estimate(
    demand: Demand, candidates: list[Model], markup_bps: int, floor_tokens: int
) -> Estimate:
    """Return an upper bound of the charge of a request over every model that may serve it.

    `candidates` holds the asked model first, then the fallbacks; `floor_tokens` is the shortest
    reply worth starting when the request names no limit of its own.
    """
    asked = candidates[0]
    limit = demand.completion_tokens
    model_limit = max(model.max_completion_tokens for model in candidates)
    per_choice = max(model.price.dearest_completion_picos for model in candidates)
    flat = max(_flat_cost(demand, model.price) for model in candidates)
    fixed = max(
        _flat_cost(demand, model.price)
        + min(demand.prompt_tokens, model.context_length * demand.prompts)
        * model.price.dearest_prompt_picos
        + demand.extra_completion_tokens * demand.choices * model.price.dearest_completion_picos
        for model in candidates
    )
    max_tokens = model_limit if limit is None else limit
    return Estimate(
        price_id=asked.price.id,
        markup_bps=markup_bps,
        fixed_picos=min(add_markup(fixed, markup_bps), MAX_PICOS),
        per_token_picos=min(add_markup(per_choice * demand.choices, markup_bps), MAX_PICOS),
        max_tokens=max_tokens,
        min_tokens=min(floor_tokens, max_tokens) if limit is None else max_tokens,
        flat_cost_picos=min(flat, MAX_PICOS),
    )


def cheapest_charge(models: Iterable[Model], markup_bps: int) -> int:
    """Return the least that any request can cost, in pico-dollars: one token of the cheapest."""
    return add_markup(
        min(model.price.request_picos + model.price.prompt_picos for model in models), markup_bps
    )


def catalogue_cost(tokens: TokenCounts, price: Price, flat_cost_picos: int) -> int:
    """Return the cost in pico-dollars by the catalogue's price, for usage without a cost."""
    plain_prompt = max(0, tokens.prompt - tokens.cached - tokens.cache_write)
    cache_read = price.prompt_picos if price.cache_read_picos is None else price.cache_read_picos
    cache_write = price.prompt_picos if price.cache_write_picos is None else price.cache_write_picos
    return (
        flat_cost_picos
        + plain_prompt * price.prompt_picos
        + tokens.cached * cache_read
        + tokens.cache_write * cache_write
        + max(0, tokens.completion - tokens.reasoning) * price.completion_picos
        + tokens.reasoning * price.dearest_completion_picos
    )


def _flat_cost(demand: Demand, price: Price) -> int:
    return (
        price.request_picos
        + demand.images * price.image_picos
        + demand.web_searches * price.web_search_picos
    )


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model as a provider's catalogue offers it; prices in pico-dollars per unit."""

    id: str
    name: str
    context_length: int
    max_completion_tokens: int
    prompt_picos: int
    completion_picos: int
    request_picos: int
    image_picos: int
    web_search_picos: int
    reasoning_picos: int
    cache_read_picos: int | None
    cache_write_picos: int | None
    listing: Mapping[str, Any]
