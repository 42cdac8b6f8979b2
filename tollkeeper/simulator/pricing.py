"""The cost of one answer: integer pico-dollars inside, decimal strings outside."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

PICOS_PER_USD = 10**12
PICOS_PER_USD_PER_MILLION = 10**6
"""A price of one US dollar per million tokens, in pico-dollars per token."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Pico-dollars per token or per unit. ``None`` means OpenRouter lists no such price."""

    prompt_picos: int
    completion_picos: int
    request_picos: int = 0
    image_picos: int = 0
    web_search_picos: int = 0
    internal_reasoning_picos: int = 0
    cache_read_picos: int | None = None
    cache_write_picos: int | None = None
    image_output_picos: int | None = None
    # From a length of the prompt on, in tokens: other prices of prompt and completion.
    tiers: tuple[tuple[int, int, int], ...] = ()

    def at(self, prompt_tokens: int) -> "Prices":
        """The prices of a request whose prompt has so many tokens."""
        reached = [tier for tier in self.tiers if tier[0] <= prompt_tokens]
        if not reached:
            return self
        _, prompt_picos, completion_picos = reached[-1]
        return replace(self, prompt_picos=prompt_picos, completion_picos=completion_picos)

    def times(self, factor: int) -> "Prices":
        """The prices of an endpoint that is so many times dearer."""
        picos = {
            one.name: value * factor
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), int)
        }
        tiers = tuple((start, factor * one, factor * two) for start, one, two in self.tiers)
        return replace(self, **picos, tiers=tiers)

    def exceed(self, limits_usd: Mapping[str, float]) -> bool:
        """True when one is above its limit of ``provider.max_price``, in floating point."""
        listed_usd = {
            "prompt": float(to_usd(self.prompt_picos)) * 1_000_000,
            "completion": float(to_usd(self.completion_picos)) * 1_000_000,
            "request": float(to_usd(self.request_picos)),
            "image": float(to_usd(self.image_picos)),
        }
        return any(usd > limits_usd.get(kind, usd) for kind, usd in listed_usd.items())

    @property
    def is_free(self) -> bool:
        return not (self.prompt_picos or self.completion_picos or self.request_picos)


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one answer. Cached, written and audio tokens are part of
    ``prompt_tokens``; reasoning tokens and those of pictures are part of ``completion_tokens``.
    ``call_count`` is how often the model was called, ``price_fifths`` what a search and a request
    cost in fifths of their listed price."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_tokens: int = 0
    reasoning_tokens: int = 0
    image_count: int = 0
    search_count: int = 0
    picture_tokens: int = 0
    call_count: int = 1
    price_fifths: int = 5
    # What is billed in place of tokens, at the price of one: characters, or seconds.
    unit_count: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def completion_cost_picos(prices: Prices, usage: Usage) -> int:
    """The part of the cost that the tokens of the reply have."""
    prices = prices.at(usage.prompt_tokens)
    # Reasoning tokens cost as much as others unless the model lists a price for them.
    reasoning_picos = prices.internal_reasoning_picos or prices.completion_picos
    spoken_tokens = usage.completion_tokens - usage.reasoning_tokens - usage.picture_tokens
    return (
        spoken_tokens * prices.completion_picos
        + usage.reasoning_tokens * reasoning_picos
        + usage.picture_tokens * (prices.image_output_picos or prices.completion_picos)
    )


def cost_picos(prices: Prices, usage: Usage) -> int:
    """The exact cost of ``usage``. A product of integers: nothing is ever rounded."""
    reply_picos = completion_cost_picos(prices, usage)
    prices = prices.at(usage.prompt_tokens)
    plain_tokens = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    return (
        (
            plain_tokens * prices.prompt_picos
            + usage.cached_tokens * (prices.cache_read_picos or 0)
            + usage.cache_write_tokens * (prices.cache_write_picos or 0)
        )
        + reply_picos
        + prices.request_picos * usage.call_count * usage.price_fifths // 5
        + prices.prompt_picos * usage.unit_count
        + prices.image_picos * usage.image_count
        + prices.web_search_picos * usage.search_count * usage.price_fifths // 5
    )


def to_usd(picos: int) -> str:
    """The exact decimal text of an amount, without an exponent: ``0.0000015``, ``0``, ``-1``."""
    whole, fraction = divmod(abs(picos), PICOS_PER_USD)
    sign = "-" if picos < 0 else ""
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:012d}".rstrip("0")
