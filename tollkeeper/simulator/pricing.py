"""The cost of one answer: integer pico-dollars inside, decimal strings outside."""

from dataclasses import dataclass

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

    @property
    def is_free(self) -> bool:
        return not (self.prompt_picos or self.completion_picos or self.request_picos)


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one answer. Cached, written and audio tokens are part of
    ``prompt_tokens``; reasoning tokens are part of ``completion_tokens``."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_tokens: int = 0
    reasoning_tokens: int = 0
    image_count: int = 0
    search_count: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def cost_picos(prices: Prices, usage: Usage) -> int:
    """The exact cost of ``usage``. A product of integers: nothing is ever rounded."""
    # Reasoning tokens cost as much as others unless the model lists a price for them.
    reasoning_picos = prices.internal_reasoning_picos or prices.completion_picos
    spoken_tokens = usage.completion_tokens - usage.reasoning_tokens
    plain_tokens = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    return (
        (
            plain_tokens * prices.prompt_picos
            + usage.cached_tokens * (prices.cache_read_picos or 0)
            + usage.cache_write_tokens * (prices.cache_write_picos or 0)
        )
        + (spoken_tokens * prices.completion_picos + usage.reasoning_tokens * reasoning_picos)
        + prices.request_picos
        + prices.image_picos * usage.image_count
        + prices.web_search_picos * usage.search_count
    )


def to_usd(picos: int) -> str:
    """The exact decimal text of an amount, without an exponent: ``0.0000015``, ``0``, ``-1``."""
    whole, fraction = divmod(abs(picos), PICOS_PER_USD)
    sign = "-" if picos < 0 else ""
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:012d}".rstrip("0")
