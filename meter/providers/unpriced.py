"""Finds the prices of models whose provider lists none. Pure.

An administrator's price list precedes. Then, for a provider that is free, a price of nothing;
else OpenRouter's catalogue for the same model, as far as the usage that the provider names shows
what is billed; else the last price that this catalogue gave.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from meter.pricing.catalogue_store import KnownPrice, ModelListing
from meter.pricing.prices import (
    ASSUMED_CONTEXT_TOKENS,
    TIER_STARTS_AT,
    Model,
    OfferedModel,
    Price,
    PriceOrigin,
    WithheldModel,
)
from meter.providers.openrouter.catalogue import SEARCHING_MODELS, UNLIMITED_MODELS
from meter.providers.provider import OfferedCatalogue, Provider, UnpricedModel

# The prices that usage in the shape of OpenAI tells apart. The other members of OpenRouter's prices
# are its own, or need counts that such a usage object does not have.
_TOLD_APART: Final = (
    "prompt_picos",
    "completion_picos",
    "reasoning_picos",
    "cache_read_picos",
    "cache_write_picos",
)
_ALL: Final = tuple(member.name for member in fields(Price) if member.name.endswith("_picos"))
_NOTHING: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("prompt_picos", "completion_picos", "reasoning_picos"), 0),
    **dict.fromkeys(("cache_read_picos", "cache_write_picos")),
}


@dataclass(frozen=True, slots=True)
class PriceSources:
    """The known prices: of this provider by model, and OpenRouter's models by every name."""

    own: Mapping[str, KnownPrice]
    catalogue: Mapping[str, Model]


def names_in_catalogue(listings: Iterable[ModelListing]) -> dict[str, Model]:
    """Return OpenRouter's models by id and by canonical name; an id precedes."""
    names: dict[str, Model] = {}
    ids: dict[str, Model] = {}
    for listing in listings:
        model = listing.model
        canonical = listing.listing.get("canonical_slug")
        if isinstance(canonical, str):
            names.setdefault(canonical, model)
        ids[model.id] = model
    return names | ids


def find_prices(
    provider: Provider, listed: OfferedCatalogue, sources: PriceSources
) -> OfferedCatalogue:
    """Return a listing whose models all have a price or a reason why they are withheld."""
    offered = {model.id: model for model in listed.models}
    withheld = {model.id: model for model in listed.withheld}
    # An id of ours that OpenRouter has too leads to the youngest of the names that mean it.
    for model_id, unpriced in _ids_of(provider, listed.unpriced, sources.catalogue):
        found = _find_price(provider, model_id, unpriced, sources)
        if isinstance(found, WithheldModel):
            withheld[model_id] = found
        else:
            offered[model_id] = found
    return OfferedCatalogue(
        tuple(model for model in offered.values() if model.id not in withheld),
        tuple(withheld.values()),
    )


def _ids_of(
    provider: Provider, unpriced: Iterable[UnpricedModel], catalogue: Mapping[str, Model]
) -> Iterator[tuple[str, UnpricedModel]]:
    """Return the ids under which models are offered: their names, and OpenRouter's for them."""
    exact = {provider.model_prefix + model.upstream_name: model for model in unpriced}
    yield from exact.items()
    also: dict[str, UnpricedModel] = {}
    for model in sorted(exact.values(), key=lambda one: one.upstream_name):
        match = _match(provider, model, catalogue)
        if match is not None and match.id not in exact:
            also[match.id] = model
    yield from also.items()


def _match(
    provider: Provider, unpriced: UnpricedModel, catalogue: Mapping[str, Model]
) -> Model | None:
    for name in unpriced.catalogue_names:
        if (model := catalogue.get(provider.model_prefix + name)) is not None:
            return model
    return None


def _find_price(
    provider: Provider, model_id: str, unpriced: UnpricedModel, sources: PriceSources
) -> OfferedModel | WithheldModel:
    known = sources.own.get(model_id)
    match = _match(provider, unpriced, sources.catalogue)
    origin: PriceOrigin
    if known is not None and known.origin is PriceOrigin.ADMINISTRATOR:
        origin, prices = known.origin, _members_of(known.price, _ALL)
    elif provider.is_free:
        origin, prices = PriceOrigin.PROVIDER, dict(_NOTHING)
    elif match is not None:
        reason = _untold(match)
        if reason is not None:
            return WithheldModel(model_id, reason)
        origin, prices = PriceOrigin.CATALOGUE, _members_of(match.price, _TOLD_APART)
    elif known is not None and known.origin is PriceOrigin.CATALOGUE:
        origin, prices = known.origin, _members_of(known.price, _ALL)
    else:
        return WithheldModel(
            model_id,
            "It has no price: its provider lists none, and OpenRouter has no model of this name."
            f" Import one: tollkeeper prices import FILE --provider {provider.id}",
        )
    context_length, most = unpriced.context_length, unpriced.max_completion_tokens
    if match is not None:
        context_length = context_length or match.context_length
        most = most or match.max_completion_tokens
    context_length = context_length or ASSUMED_CONTEXT_TOKENS
    return OfferedModel(
        id=model_id,
        name=model_id if match is None else match.name,
        context_length=context_length,
        max_completion_tokens=min(most or context_length, context_length),
        listing={},
        upstream_name=unpriced.upstream_name,
        origin=origin,
        **{"request_picos": 0, "image_picos": 0, "web_search_picos": 0, **prices},
    )


def _untold(match: Model) -> str | None:
    """Return why OpenRouter's price of a model is of no use elsewhere; None where it is."""
    price = match.price
    if match.unasked_searches or any(
        pattern.search(match.id) for pattern in (SEARCHING_MODELS, UNLIMITED_MODELS)
    ):
        return "It searches unasked, and the provider's usage does not say how often."
    if price.audio_output_picos or price.image_output_picos:
        return "Its replies may be sound or pictures, which the provider's usage does not price."
    return None


def _members_of(price: Price, names: Sequence[str]) -> dict[str, Any]:
    """Return these prices with those of the tiers, as an `OfferedModel` has them."""
    tiers = tuple(
        {
            TIER_STARTS_AT: tier.min_prompt_tokens,
            **{name: picos for name in names if (picos := getattr(tier.price, name)) is not None},
        }
        for tier in price.tiers
    )
    return {**{name: getattr(price, name) for name in names}, "tiers": tiers}
