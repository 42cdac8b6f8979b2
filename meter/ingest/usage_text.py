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
# Members of Messages for the tokens that `input_tokens` leaves out there.
_CACHE_BESIDE_INPUT: Final = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens"})

# One of them is in the usage that ends a stream of Messages.
_TOLD_AT_THE_END: Final = frozenset({"output_tokens", "completion_tokens", "cost"})


def usage_from_json(text: str, start_text: str | None = None) -> ReportedUsage | None:
    """Read a usage object as OpenRouter, OpenAI and Anthropic write it; None when it is not one.

    `start_text` is the usage with which a stream of Messages began; members of the later object
    replace those of the start.
    """
    usage = _decode(text)
    if start_text is not None and isinstance(usage, dict):
        named = {name: value for name, value in usage.items() if value is not None}
        if named.keys().isdisjoint(_TOLD_AT_THE_END):
            # What the start has of the reply is its first token.
            return None
        usage = {**_mapping(_decode(start_text)), **named}
    return usage_from_object(usage)


def usage_from_object(usage: object) -> ReportedUsage | None:
    """Read a decoded usage object; None when it lacks what a usage object must have.

    `input_tokens` and `output_tokens` are names of Responses, Messages and transcriptions. Those of
    Messages have the cache's tokens beside the input; in all other shapes they are part of it.
    """
    if not isinstance(usage, dict):
        return None
    if "prompt_tokens" not in usage and "input_tokens" in usage:
        return _usage_from_input(usage)
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
        search_units=usage.get("search_units"),
        seconds=usage.get("seconds"),
    )


def _usage_from_input(usage: Mapping[str, Any]) -> ReportedUsage | None:
    output_details = _mapping(usage.get("output_tokens_details"))
    reasoning = output_details.get("reasoning_tokens")
    input_tokens, details = usage["input_tokens"], usage.get("input_tokens_details")
    is_beside = details is None and not _CACHE_BESIDE_INPUT.isdisjoint(usage)
    return usage_from_members(
        prompt_tokens=None if is_beside else input_tokens,
        fresh_tokens=input_tokens if is_beside else None,
        completion_tokens=usage.get("output_tokens"),
        cached_tokens=(
            usage.get("cache_read_input_tokens")
            if is_beside
            else _mapping(details).get("cached_tokens")
        ),
        cache_write_tokens=(
            usage.get("cache_creation_input_tokens")
            if is_beside
            else _mapping(details).get("cache_write_tokens")
        ),
        reasoning_tokens=output_details.get("thinking_tokens") if reasoning is None else reasoning,
        cost=usage.get("cost"),
        upstream_cost=_mapping(usage.get("cost_details")).get("upstream_inference_cost"),
        is_byok=usage.get("is_byok"),
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
    fresh_tokens: object = None,
    search_units: object = None,
    seconds: object = None,
) -> ReportedUsage | None:
    """Read usage whose members were extracted one by one; None without a prompt count.

    Embeddings name no completion; one that is named and no count is unknown, never zero. Google
    bills thoughts as output and counts them in the total only, so usage without a cost has what
    the total has beside the prompt. `fresh_tokens` are those of a prompt that no cache was read
    for or written with. What is billed by search units or seconds may have a total alone.
    """
    prompt = _count(prompt_tokens)
    completion = _count(completion_tokens)
    cached, written = _count(cached_tokens) or 0, _count(cache_write_tokens) or 0
    if prompt is None and prompt_tokens is None:
        if fresh_tokens is not None:
            fresh = _count(fresh_tokens)
            prompt = None if fresh is None else fresh + cached + written
        elif search_units is not None or seconds is not None:
            prompt = _count(total_tokens) or 0
    if prompt is None or (completion is None and completion_tokens is not None):
        return None
    if completion is not None and cost is None and total_tokens is not None:
        completion = max(completion, (_count(total_tokens) or 0) - prompt)
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


def _decode(text: str) -> object:
    """Return the decoded text; None for what is too long or no JSON."""
    if len(text) > MAX_USAGE_CHARS:
        return None
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError, InvalidOperation):
        # A number whose exponent no decimal can hold is none.
        return None


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
