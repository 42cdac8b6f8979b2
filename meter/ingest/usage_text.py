"""Reads the usage object that providers write, from text or from Envoy's extracted fields.

Numbers of a text are parsed as integers and decimals: a float would change the cost. A number that
Envoy extracted is a double; its shortest text has the digits that were sent, up to 15 of them.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from meter.usage.usage import ReportedUsage, TokenCounts

MAX_USAGE_CHARS: Final = 65_536
# No reply has more tokens than this; a larger number is an error of the provider.
MAX_TOKENS: Final = 10**12
_JSON: Final = msgspec.json.Decoder(float_hook=Decimal)
_NO_MEMBERS: Final[Mapping[str, Any]] = {}


def usage_from_json(text: str) -> ReportedUsage | None:
    """Read a usage object as OpenRouter and OpenAI write it; None when it is not one."""
    if len(text) > MAX_USAGE_CHARS:
        return None
    try:
        usage = _JSON.decode(text)
    except (ValueError, RecursionError, InvalidOperation):
        # A number whose exponent no decimal can hold is none.
        return None
    return usage_from_object(usage)


def usage_from_object(usage: object) -> ReportedUsage | None:
    """Read a decoded usage object; None when it lacks what a usage object must have."""
    if not isinstance(usage, dict):
        return None
    prompt_details = _mapping(usage.get("prompt_tokens_details"))
    return usage_from_members(
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        cached_tokens=prompt_details.get("cached_tokens"),
        cache_write_tokens=prompt_details.get("cache_write_tokens"),
        reasoning_tokens=_mapping(usage.get("completion_tokens_details")).get("reasoning_tokens"),
        cost=usage.get("cost"),
        upstream_cost=_mapping(usage.get("cost_details")).get("upstream_inference_cost"),
        is_byok=usage.get("is_byok"),
        total_tokens=usage.get("total_tokens"),
    )


def usage_from_members(
    *,
    prompt_tokens: object,
    completion_tokens: object,
    cached_tokens: object,
    cache_write_tokens: object,
    reasoning_tokens: object,
    cost: object,
    upstream_cost: object,
    is_byok: object,
    total_tokens: object = None,
) -> ReportedUsage | None:
    """Read usage whose members were extracted one by one; None without a prompt count.

    Embeddings name no completion; one that is named and no count is unknown, never zero. Google
    bills thoughts as output and counts them in the total only, so usage without a cost has what
    the total has beside the prompt.
    """
    prompt = _count(prompt_tokens)
    completion = _count(completion_tokens)
    if prompt is None or (completion is None and completion_tokens is not None):
        return None
    if completion is not None and cost is None and total_tokens is not None:
        completion = max(completion, (_count(total_tokens) or 0) - prompt)
    cached, written = _count(cached_tokens) or 0, _count(cache_write_tokens) or 0
    reasoning = _count(reasoning_tokens) or 0
    # By position: names cost more than the objects.
    tokens = TokenCounts(prompt, completion or 0, cached, written, reasoning)
    return ReportedUsage(tokens, _cost(cost), _cost(upstream_cost), is_byok is True)


def is_lesser(usage: ReportedUsage, other: ReportedUsage) -> bool:
    """Return whether usage has fewer tokens of a kind, or a smaller cost, than other usage."""
    mine, its = usage.tokens, other.tokens
    return (
        mine.prompt < its.prompt
        or mine.completion < its.completion
        or (usage.cost_usd or 0) < (other.cost_usd or 0)
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NO_MEMBERS


def _decimal(value: object) -> Decimal | None:
    """A finite number as a decimal. A float is read by its shortest text: the digits sent."""
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, float | int | str) and not isinstance(value, bool):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return None
    else:
        return None
    return number if number.is_finite() else None


def _count(value: object) -> int | None:
    # Two short ways for what nearly every reply has, and one for all else.
    if value is None:
        return None
    if type(value) is float and value.is_integer() and 0 <= value <= MAX_TOKENS:
        return int(value)
    number = _decimal(value)
    if number is None or not 0 <= number <= MAX_TOKENS or number != number.to_integral_value():
        return None
    return int(number)


def _cost(value: object) -> Decimal | None:
    """A cost as a number of the reply; text and negative numbers are no cost."""
    if value is None or isinstance(value, str):
        return None
    number = _decimal(value)
    return None if number is None or number < 0 else number
