"""Prices, the upper bound of what a request may cost, and the cost of what it used.

Prices are pico-dollars per unit and effective from an instant. An estimate must never be below
the charge that follows (R6), so each part of it assumes the highest price that may apply.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from meter.money import BPS_PER_WHOLE, MAX_PICOS, add_markup
from meter.usage.usage import TokenCounts
from meter.values import light_value

# The provider of requests that no route sends elsewhere.
DEFAULT_PROVIDER: Final = "openrouter"
# Tokens that providers add to a prompt themselves: chat templates, tool preambles.
PROMPT_OVERHEAD_TOKENS: Final = 1_024
# A reply that is a picture or sound is billed whole, although the limit of the reply is less. The
# dearest picture that is documented has 6,240 tokens.
MEDIA_REPLY_TOKENS: Final = 8_192
# The assumed limit of a model whose listing names none.
ASSUMED_CONTEXT_TOKENS: Final = 131_072
# A class of requests whose estimate would have to be raised further is refused.
MAX_FACTOR_BPS: Final = 100 * BPS_PER_WHOLE
# The end of the names of models whose price of nothing is believed, whatever they count.
FREE_SUFFIX: Final = ":free"
# A lower price of a second of sound, 1.8 US cents an hour, would be that of a token: listings have
# either under one name.
LEAST_SECOND_PICOS: Final = 5_000_000
# What the work of a provider beside the model usually costs at most: one search, or some pages of
# a document. It is part of the charge only where nobody can tell the cost.
LIKELY_WORK_PICOS: Final = 15_000_000_000
# The member of a stored tier that says from which length of the prompt on it applies.
TIER_STARTS_AT: Final = "min_prompt_tokens"


class Extra(StrEnum):
    """The parts of a request whose cost only a price of their own bounds."""

    WEB_SEARCH = "web_search_picos"
    SOUND = "audio_picos"
    LONG_CACHE = "cache_write_1h_picos"
    SPOKEN_REPLY = "audio_output_picos"
    PICTURE_REPLY = "image_output_picos"
    # Units of endpoints that are not billed by token. Listings have their prices under the names
    # of others: of a request for a search, of a token of the prompt for characters and seconds.
    SEARCH_UNITS = "search_units"
    CHARACTERS = "characters"
    SECONDS = "seconds"

    @property
    def is_unit(self) -> bool:
        """Return whether a whole request is billed by this, and not a part of one."""
        return self in _UNITS


_UNITS: Final = frozenset({Extra.SEARCH_UNITS, Extra.CHARACTERS, Extra.SECONDS})


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one unit of a model, in pico-dollars, from `effective_from` on.

    None where the provider lists no such price. `tiers` hold the prices of long prompts, shortest
    first. Text, sound and pictures of a reply count as completion tokens.
    """

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
    cache_write_1h_picos: int | None = None
    image_token_picos: int | None = None
    image_output_picos: int | None = None
    audio_picos: int | None = None
    audio_output_picos: int | None = None
    audio_cache_picos: int | None = None
    tiers: "tuple[PriceTier, ...]" = ()
    provider: str = DEFAULT_PROVIDER

    @property
    def is_free(self) -> bool:
        """Return whether every price of this model is zero, in every tier."""
        return not any(
            (
                self.prompt_picos,
                self.completion_picos,
                self.request_picos,
                self.image_picos,
                self.web_search_picos,
                self.reasoning_picos,
                self.cache_write_picos,
                self.cache_write_1h_picos,
                self.image_token_picos,
                self.image_output_picos,
                self.audio_picos,
                self.audio_output_picos,
            )
        ) and all(tier.price.is_free for tier in self.tiers)

    @property
    def has_flat_parts(self) -> bool:
        """Return whether a part of the cost may not depend on tokens."""
        return any(
            price.request_picos or price.image_picos or price.web_search_picos
            for price in (self, *(tier.price for tier in self.tiers))
        )

    @property
    def dearest_prompt_picos(self) -> int:
        """Return the most that one prompt token of text can cost: plain, or of a cache."""
        return max(self.prompt_picos, self.cache_read_picos or 0, self.cache_write_picos or 0)

    @property
    def dearest_completion_picos(self) -> int:
        """Return the most that one completion token can cost: text, thought, picture or sound."""
        return max(
            self.completion_picos,
            self.reasoning_picos,
            self.image_output_picos or 0,
            self.audio_output_picos or 0,
        )

    @property
    def bills_thought_apart(self) -> bool:
        """Return whether thinking has a price of its own, so that the limit may not count it."""
        return self.reasoning_picos not in (0, self.completion_picos)

    def lists(self, extra: Extra) -> bool:
        """Return whether there is a price for this part of a request."""
        if extra.is_unit:
            return self._lists_unit(extra)
        picos: int | None = getattr(self, extra.value)
        return picos is not None and (picos > 0 or extra is not Extra.WEB_SEARCH)

    def _lists_unit(self, unit: Extra) -> bool:
        if self.is_free:
            return self.model_id.endswith(FREE_SUFFIX)
        if unit is Extra.SEARCH_UNITS:
            # Some rerankers bill the tokens that they read.
            return self.request_picos > 0 or self.prompt_picos > 0
        # Nothing bounds the tokens of a reply that no limit can be written for.
        least = LEAST_SECOND_PICOS if unit is Extra.SECONDS else 1
        return self.prompt_picos >= least and not self.dearest_completion_picos

    def reachable(self, prompt_tokens: int) -> "tuple[Price, ...]":
        """Return the prices that may apply to a prompt of at most so many tokens."""
        if not self.tiers:
            return (self,)
        reached = (tier.price for tier in self.tiers if tier.min_prompt_tokens <= prompt_tokens)
        return (self, *reached)

    def at(self, prompt_tokens: int) -> "Price":
        """Return the price that applies to a prompt of exactly so many tokens."""
        return self.reachable(prompt_tokens)[-1]


@dataclass(frozen=True, slots=True)
class PriceTier:
    """The price of a whole request whose prompt has at least `min_prompt_tokens`."""

    min_prompt_tokens: int
    price: Price


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the catalogue offers, with its price in force and its own limits.

    `unasked_searches` is the most web searches that one request bills without asking for any.
    `raised_bps` has the endpoints whose requests proved to cost more than their holds, with the
    factor by which their estimates are raised.
    """

    id: str
    name: str
    context_length: int
    max_completion_tokens: int
    price: Price
    unasked_searches: int = 0
    raised_bps: Mapping[str, int] = field(default_factory=dict)


@light_value
class ProviderWork:
    """The work of the provider for one request beside one call of the model.

    The model is called `calls` times, because tools that run at the provider have it read their
    results. In them each token of a reply may be read again, `rereads` times in sum. `picos` is
    what those tools, and plugins, cost whatever the model is. A search of the model's own, or a
    request to it, may cost `search_weight` times the listed price.
    """

    calls: int = 1
    rereads: int = 0
    picos: int = 0
    search_weight: int = 1


NO_WORK: Final = ProviderWork()


@light_value
class Demand:
    """The most that one request can ask of a provider, before any price is applied.

    `completion_tokens` bounds one choice; None where the request names no limit, so that a limit
    must be written into it. `extra_completion_tokens` may be billed beside each choice, whatever
    the limit; `bounds_thought` says that thinking is among them. `extras` need a listed price.
    `may_hear` is true where a part of the prompt may hold sound. The counts include the further
    calls of the model that `work` names.
    """

    prompt_tokens: int
    completion_tokens: int | None
    choices: int = 1
    extra_completion_tokens: int = 0
    images: int = 0
    web_searches: int = 0
    # The number of prompts that share `prompt_tokens`; each may fill the whole context.
    prompts: int = 1
    bounds_thought: bool = False
    may_hear: bool = False
    extras: frozenset[Extra] = frozenset()
    work: ProviderWork = NO_WORK

    def dearest_prompt_picos(self, price: Price) -> int:
        """Return the most that one token of the prompt can cost at a price."""
        dearest = price.dearest_prompt_picos
        if self.images:
            dearest = max(dearest, price.image_token_picos or 0)
        if self.may_hear:
            dearest = max(dearest, price.audio_picos or 0, price.audio_cache_picos or 0)
        if Extra.LONG_CACHE in self.extras:
            dearest = max(dearest, price.cache_write_1h_picos or 0)
        return dearest

    def tokens_beyond_limit(self, model: Model, price: Price) -> int:
        """Return the completion tokens of one choice that its limit does not count."""
        tokens = self.extra_completion_tokens
        if self.completion_tokens == 0:
            # There is no reply that a limit could bound.
            if Extra.PICTURE_REPLY in self.extras and price.dearest_completion_picos:
                # Thoughts beside a picture, counted as tokens of the dearest kind.
                thought_picos = max(price.completion_picos, price.reasoning_picos)
                thoughts_picos = model.max_completion_tokens * thought_picos
                tokens += -(-thoughts_picos // price.dearest_completion_picos)
            return tokens
        if price.bills_thought_apart and not self.bounds_thought:
            tokens += model.max_completion_tokens
        if price.image_output_picos or price.audio_output_picos:
            tokens += MEDIA_REPLY_TOKENS
        return tokens


class PriceCeiling(NamedTuple):
    """The prices that an estimate assumes, in pico-dollars, which the provider must not exceed.

    `image_picos` is None where the request has no image.
    """

    prompt_picos: int
    completion_picos: int
    request_picos: int
    image_picos: int | None


@light_value
class Estimate:
    """An upper bound of the charge: `fixed` plus `per_token` for each token of one choice.

    Both amounts include markup. `max_tokens` is the limit of the request or, without one, of the
    model. `min_tokens` is the least that is worth a hold; it equals `max_tokens` where the request
    names a limit. `flat_cost_picos` is the likely cost, before markup, that does not depend on
    tokens.
    """

    price_id: int
    markup_bps: int
    fixed_picos: int
    per_token_picos: int
    max_tokens: int
    min_tokens: int
    flat_cost_picos: int


def raised_factor_bps(candidates: Iterable[Model], endpoint: str) -> int:
    """Return the factor, in basis points, by which measured excess raises an estimate."""
    factor_bps = BPS_PER_WHOLE
    for model in candidates:
        if model.raised_bps:
            factor_bps = max(factor_bps, model.raised_bps.get(endpoint, 0))
    return factor_bps


def estimate(
    demand: Demand,
    candidates: list[Model],
    markup_bps: int,
    floor_tokens: int,
    factor_bps: int = BPS_PER_WHOLE,
) -> Estimate:
    """Return an upper bound of the charge of a request over every model that may serve it.

    `candidates` holds the asked model first, then the fallbacks; `floor_tokens` is the shortest
    reply worth starting when the request names no limit of its own. `factor_bps` raises the bound
    of a class of requests that proved to exceed it.
    """
    limit, work = demand.completion_tokens, demand.work
    fixed = per_token = flat = model_limit = 0
    for model in candidates:
        model_limit = max(model_limit, model.max_completion_tokens)
        searches = demand.web_searches
        prompt_tokens = context = model.context_length * demand.prompts
        if model.unasked_searches:
            # Results are put into the prompt, so that they may fill the whole context.
            searches += model.unasked_searches * demand.prompts
        else:
            prompt_tokens = min(demand.prompt_tokens, context)
        for price in model.price.reachable(prompt_tokens):
            # The most that one more token of each reply costs.
            reply_picos = demand.choices * price.dearest_completion_picos
            prompt_picos = demand.dearest_prompt_picos(price)
            search_picos = price.web_search_picos
            other = price.request_picos + demand.images * price.image_picos
            likely = other + min(searches, demand.web_searches or 1) * search_picos
            if work is not NO_WORK:
                likely += price.request_picos * (work.calls - 1)
                likely += min(work.picos, LIKELY_WORK_PICOS)
                reply_picos += work.rereads * prompt_picos
                other += price.request_picos * (work.calls * work.search_weight - 1) + work.picos
                search_picos *= work.search_weight
            flat = max(flat, likely)
            fixed = max(
                fixed,
                other
                + searches * search_picos
                + prompt_tokens * prompt_picos
                + demand.tokens_beyond_limit(model, price) * reply_picos,
            )
            per_token = max(per_token, reply_picos)
    if factor_bps != BPS_PER_WHOLE:
        fixed = -(-fixed * factor_bps // BPS_PER_WHOLE)
        per_token = -(-per_token * factor_bps // BPS_PER_WHOLE)
    max_tokens = model_limit if limit is None else limit
    least = min(floor_tokens, max_tokens) if limit is None else max_tokens
    return Estimate(
        candidates[0].price.id,
        markup_bps,
        min(add_markup(fixed, markup_bps), MAX_PICOS),
        min(add_markup(per_token, markup_bps), MAX_PICOS),
        max_tokens,
        least,
        min(flat, MAX_PICOS),
    )


def cheapest_charge(models: Iterable[Model], markup_bps: int) -> int:
    """Return the least that any request can cost, in pico-dollars: one token of the cheapest."""
    return add_markup(
        min(model.price.request_picos + model.price.prompt_picos for model in models), markup_bps
    )


def price_ceiling(demand: Demand, candidates: list[Model]) -> PriceCeiling:
    """Return the dearest listed prices that `estimate` assumes for these candidates."""
    prices = [
        price for model in candidates for price in model.price.reachable(demand.prompt_tokens)
    ]
    first = prices[0]
    if len(prices) == 1:
        image_picos = first.image_picos if demand.images else None
        return PriceCeiling(
            first.prompt_picos, first.completion_picos, first.request_picos, image_picos
        )
    return PriceCeiling(
        max(price.prompt_picos for price in prices),
        max(price.completion_picos for price in prices),
        max(price.request_picos for price in prices),
        max(price.image_picos for price in prices) if demand.images else None,
    )


def catalogue_cost(tokens: TokenCounts, price: Price, flat_cost_picos: int) -> int:
    """Return the cost in pico-dollars by the catalogue's price, for usage without a cost."""
    price = price.at(tokens.prompt)
    plain_prompt = max(0, tokens.prompt - tokens.cached - tokens.cache_write)
    cache_read = price.prompt_picos if price.cache_read_picos is None else price.cache_read_picos
    cache_write = price.prompt_picos if price.cache_write_picos is None else price.cache_write_picos
    return (
        flat_cost_picos
        + plain_prompt * price.prompt_picos
        + tokens.cached * cache_read
        + tokens.cache_write * cache_write
        + max(0, tokens.completion - tokens.reasoning) * price.completion_picos
        + tokens.reasoning * max(price.completion_picos, price.reasoning_picos)
    )


class PriceOrigin(StrEnum):
    """The origin of a price.

    `provider` its own listing, `catalogue` OpenRouter's catalogue for the same model, and
    `administrator` a price list of an administrator, which no listing replaces.
    """

    PROVIDER = "provider"
    CATALOGUE = "catalogue"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a provider besides the default one serves.

    `model` has the limits and the price of this provider; `upstream_name` is the provider's own
    name of the model.
    """

    provider: str
    upstream_name: str
    model: Model


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model as a provider's catalogue offers it; prices in pico-dollars per unit.

    `tiers` name the least length of prompts as `TIER_STARTS_AT`, and the prices that differ from
    that length on as the members here are named. `upstream_name` is the provider's own name of
    the model; None where that is the id.
    """

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
    cache_write_1h_picos: int | None = None
    image_token_picos: int | None = None
    image_output_picos: int | None = None
    audio_picos: int | None = None
    audio_output_picos: int | None = None
    audio_cache_picos: int | None = None
    tiers: tuple[Mapping[str, int], ...] = ()
    unasked_searches: int = 0
    upstream_name: str | None = None
    origin: PriceOrigin = PriceOrigin.PROVIDER


@dataclass(frozen=True, slots=True)
class WithheldModel:
    """A model that a provider lists and that is not offered, with the reason."""

    id: str
    reason: str
