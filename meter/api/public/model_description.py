"""A model as `GET /v1/models` describes it, with every member that OpenRouter's schema requires.

Clients that validate refuse the whole list for one member that is missing or of another type, so
what a provider lists is passed on only where it has the type of the schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from meter.money import BPS_PER_WHOLE, DECIMAL_PLACES
from meter.pricing.prices import TIER_STARTS_AT, Model, Price

# Basis points add four places to those of a pico-dollar.
_MARKUP_PLACES: Final = 4
_SCALE: Final = 10 ** (DECIMAL_PLACES + _MARKUP_PLACES)
_DEFAULTS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A name that requests may use: the model as it is served, and its provider's description.

    `alias_of` is the model that the name stands for; None where the name is the model's own.
    """

    name: str
    model: Model
    listing: Mapping[str, Any]
    alias_of: str | None = None

    def describe(self, markup_bps: int) -> dict[str, Any]:
        """Return the members of the model, with prices that include this markup."""
        model, listing, price = self.model, self.listing, self.model.price
        alias_of = self.alias_of
        top_provider = _of(dict, listing.get("top_provider")) or {}
        described: dict[str, Any] = {
            "id": self.name,
            "object": "model",
            "created": _of(int, listing.get("created")) or 0,
            "owned_by": model.id.partition("/")[0].lstrip("~"),
            "name": model.name if alias_of is None else self.name,
            "canonical_slug": _of(str, listing.get("canonical_slug")) or model.id,
            "context_length": model.context_length,
            "architecture": _architecture(listing.get("architecture")),
            "pricing": {
                **_unit_prices(price, markup_bps),
                **({"overrides": _tiers(price, markup_bps)} if price.tiers else {}),
            },
            "top_provider": {
                **top_provider,
                "context_length": model.context_length,
                "max_completion_tokens": model.max_completion_tokens,
                "is_moderated": _of(bool, top_provider.get("is_moderated")) or False,
            },
            "supported_parameters": _texts(listing.get("supported_parameters")),
            "supported_voices": _texts(listing.get("supported_voices")) or None,
            "per_request_limits": _numbers(
                listing.get("per_request_limits"), ("prompt_tokens", "completion_tokens")
            ),
            "default_parameters": _numbers(listing.get("default_parameters"), _DEFAULTS),
            "links": {"details": f"/v1/models/{self.name}"},
        }
        for member in ("description", "hugging_face_id", "knowledge_cutoff", "expiration_date"):
            text = _of(str, listing.get(member))
            if text is not None:
                described[member] = text
        reasoning = _of(dict, listing.get("reasoning"))
        if reasoning is not None and isinstance(reasoning.get("mandatory"), bool):
            described["reasoning"] = reasoning
        if alias_of is not None:
            described["alias_of"] = alias_of
            described["alias_target"] = {"name": model.name, "slug": model.id}
        return described


def _of(kind: type, value: Any) -> Any:
    """Return a value of exactly this type, None for any other: true is no integer."""
    return value if type(value) is kind else None


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _numbers(value: Any, names: tuple[str, ...]) -> dict[str, float | int] | None:
    """Return the named members that are numbers; None where there is none."""
    if not isinstance(value, dict):
        return None
    found = {name: value[name] for name in names if type(value.get(name)) in (int, float)}
    return found if found or not value else None


def _architecture(value: Any) -> dict[str, Any]:
    """Return what goes in and comes out; text both ways where the provider does not say."""
    listed = value if isinstance(value, dict) else {}
    architecture: dict[str, Any] = {
        "modality": _of(str, listed.get("modality")),
        "input_modalities": _texts(listed.get("input_modalities")) or ["text"],
        "output_modalities": _texts(listed.get("output_modalities")) or ["text"],
        "instruct_type": _of(str, listed.get("instruct_type")),
    }
    tokenizer = _of(str, listed.get("tokenizer"))
    return architecture if tokenizer is None else {**architecture, "tokenizer": tokenizer}


def _unit_prices(price: Price, markup_bps: int) -> dict[str, str]:
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
    return {
        name: _decimal(picos, markup_bps) for name, picos in prices.items() if picos is not None
    }


def _tiers(price: Price, markup_bps: int) -> list[dict[str, str | int]]:
    """By the provider's name `overrides`: all prices from a length of the prompt on."""
    return [
        {TIER_STARTS_AT: tier.min_prompt_tokens, **_unit_prices(tier.price, markup_bps)}
        for tier in price.tiers
    ]


def _decimal(picos: int, markup_bps: int) -> str:
    """Return a unit price as providers write it: exact, and without trailing zeros."""
    whole, fraction = divmod(picos * (BPS_PER_WHOLE + markup_bps), _SCALE)
    decimals = f"{fraction:0{DECIMAL_PLACES + _MARKUP_PLACES}d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
