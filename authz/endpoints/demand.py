"""The most that a body can ask of a provider (R6), rule by rule.

Each rule says why its bound holds; docs/adr/0005-what-bounds-an-estimate.md has them as a table.
A member that no rule can bound is refused with `cost_unbounded`, which names the member.
"""

from collections.abc import Callable
from typing import Any, Final

from authz.decision import Deny, Refused
from authz.endpoints import openrouter
from authz.endpoints.advice import MODALITIES, SERVICE_TIER, advise_on_member, advise_on_tool
from authz.endpoints.body import Body
from authz.endpoints.edits import LIMIT_MEMBERS
from authz.endpoints.harmless import HARMLESS_MEMBERS, REASONING_MEMBERS
from authz.endpoints.members import (
    asks_long_cache,
    count,
    invalid,
    refuse_misspelt,
    refuse_unknown,
    unbounded,
)
from authz.endpoints.openrouter import NO_PLUGINS, PluginWork
from authz.endpoints.prompt import Prompt, measure_prompt
from authz.endpoints.server_tools import (
    STEPS_MEMBER,
    ServerTools,
    is_server_tool,
    read_server_tools,
)
from meter.pricing.prices import (
    NO_WORK,
    PROMPT_OVERHEAD_TOKENS,
    Demand,
    Extra,
    ProviderWork,
)
from meter.values import light_value

MAX_TOKENS_NAMED: Final = 10_000_000
MAX_CHOICES: Final = 128
# What OpenAI's gpt-4o-mini counts for one image at worst (48,169), rounded up to 48 Ki.
IMAGE_TOKENS: Final = 49_152
# More than any context: an estimate takes the model's context length instead.
WHOLE_CONTEXT_TOKENS: Final = 2**40
# OpenRouter makes of an effort a budget of at least so many tokens, whatever the limit.
LEAST_THOUGHT_TOKENS: Final = 1_024

CLIENT_TOOLS: Final = ("function", "custom")
_TOOL_MEMBERS: Final = frozenset({"type", "cache_control"})
_PLAIN_TIERS: Final = frozenset({"auto", "default", "flex", "standard", "standard_only"})
# These are billed apart from tokens.
_UNBOUNDED_MEMBERS: Final = (*openrouter.UNBOUNDED_MEMBERS, "search_parameters")
# The kinds of a reply beside text, with the price that each needs.
_REPLY_KINDS: Final = {"image": Extra.PICTURE_REPLY, "audio": Extra.SPOKEN_REPLY}
_NO_EXTRAS: Final[frozenset[Extra]] = frozenset()
_COST_MEMBERS: Final = frozenset(
    {
        *openrouter.COST_MEMBERS,
        *_UNBOUNDED_MEMBERS,
        *LIMIT_MEMBERS,
        *("model", "n", "best_of", "prediction", "reasoning", "modalities", "audio", "tools"),
        *("reasoning_effort", "service_tier", "messages", "prompt", "input", "cache_control"),
        STEPS_MEMBER,
    }
)
KNOWN_MEMBERS: Final = _COST_MEMBERS | HARMLESS_MEMBERS
# A body of these alone cannot break a rule about members, and asks for nothing that needs a price
# of its own, unless its messages do.
_ORDINARY_MEMBERS: Final = HARMLESS_MEMBERS - {openrouter.PROVIDER_MEMBER} | {
    "model",
    "messages",
    *LIMIT_MEMBERS,
}


@light_value
class Replies:
    """The replies that a body asks for.

    `limit_tokens` bounds each; None where the body names no limit. `extra_tokens` may be billed
    beside each, whatever the limit; `bounds_thought` says that thinking is among them.
    """

    limit_tokens: int | None
    choices: int
    extra_tokens: int
    bounds_thought: bool = False


def bound_demand(
    body: Body, is_online: bool, read_replies: Callable[[Body], Replies]
) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded.

    `is_online` is true when the name of a model asks for web search.
    """
    members = body.members
    try:
        is_ordinary = members.keys() <= _ORDINARY_MEMBERS
        if not is_ordinary:
            refuse_misspelt(members, _COST_MEMBERS)
            refuse_unknown(members, KNOWN_MEMBERS)
            _refuse_unbounded(members)
            openrouter.read_price_limits(members)
        replies = read_replies(body)
        plugins, tools = NO_PLUGINS, None
        if not is_ordinary or is_online:
            plugins = openrouter.read_plugins(members, is_online)
            tools = read_server_tools(members)
        prompt = measure_prompt(body)
        extras = _NO_EXTRAS
        if not is_ordinary or plugins.searches or prompt.has_sound or prompt.has_long_cache:
            extras = read_extras(members, prompt, plugins.searches)
    except Refused as refused:
        return refused.deny
    return to_demand(body, prompt, replies, plugins, extras, 0, tools)


def to_demand(
    body: Body,
    prompt: Prompt,
    replies: Replies,
    plugins: PluginWork,
    extras: frozenset[Extra],
    overhead_tokens: int = 0,
    tools: ServerTools | None = None,
) -> Demand:
    """Return the demand of a body whose parts were measured.

    `overhead_tokens` bound what the provider adds to the prompt beside what it adds to every one.
    """
    # Search results and videos, which are fetched from elsewhere, can fill the whole context.
    prompt_tokens = WHOLE_CONTEXT_TOKENS
    has_plugins = plugins is not NO_PLUGINS
    if not prompt.is_opaque and not (has_plugins and plugins.fills_context):
        # A token is at least one byte of the body; images are counted apart from their bytes.
        text_tokens = body.size_bytes - prompt.inline_bytes
        prompt_tokens = text_tokens + PROMPT_OVERHEAD_TOKENS + prompt.images * IMAGE_TOKENS
        prompt_tokens += overhead_tokens
    # Some gateways run the whole request once for each choice.
    times = replies.choices
    prompts = times * prompt.prompts
    work = NO_WORK
    if has_plugins or prompt.files:
        picos = plugins.search_picos + prompt.files * plugins.file_picos
        work = ProviderWork(picos=prompts * picos, search_weight=plugins.search_weight)
    demand = Demand(
        times * prompt_tokens,
        replies.limit_tokens,
        prompts,
        replies.extra_tokens,
        times * prompt.images,
        plugins.searches * prompts,
        prompts,
        replies.bounds_thought,
        prompt.may_hear,
        extras,
        work,
    )
    return demand if tools is None else tools.add_to(demand)


def bound_generated_text(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that a body that asks for text may ask for, or why it has no bound."""
    return bound_demand(body, is_online, read_generated_replies)


def read_choices(members: dict[str, Any]) -> int:
    """Return how many replies the body asks for to each prompt. Raises Refused."""
    return max(
        count(members, "n", MAX_CHOICES) or 1,
        count(members, "best_of", MAX_CHOICES) or 1,
    )


def read_limit(members: dict[str, Any]) -> int | None:
    """Return the limit of one reply, or None where the body names none. Raises Refused.

    Providers read one name or the other: the larger limit bounds both.
    """
    largest = None
    for name in LIMIT_MEMBERS:
        limit = count(members, name, MAX_TOKENS_NAMED)
        if limit is not None and (largest is None or limit > largest):
            largest = limit
    return largest


def read_generated_replies(body: Body) -> Replies:
    """Return the replies of a model that generates text. Raises Refused."""
    members = body.members
    choices, limit = read_choices(members), read_limit(members)
    extra = 0
    bounds_thought = False
    reasoning = members.get("reasoning")
    if reasoning is not None:
        extra, bounds_thought = read_thought(reasoning, REASONING_MEMBERS)
    elif members.get("reasoning_effort") is not None:
        extra += LEAST_THOUGHT_TOKENS
    if members.get("prediction") is not None:
        # Predicted tokens that the model rejects are billed as completion, beside the reply.
        extra += body.size_bytes
    return Replies(limit, choices, extra, bounds_thought)


def read_thought(reasoning: object, known: frozenset[str]) -> tuple[int, bool]:
    """Return the tokens that thinking may take beside the reply, and whether they bound it.

    `known` are the members that `reasoning` may have. Raises Refused.
    """
    # Some providers count a reasoning budget on top of the reply's limit.
    if not isinstance(reasoning, dict):
        raise invalid("reasoning", "an object")
    refuse_misspelt(reasoning, known)
    refuse_unknown(reasoning, known, "reasoning.")
    budget = count(reasoning, "max_tokens", MAX_TOKENS_NAMED, "reasoning.max_tokens")
    return budget or LEAST_THOUGHT_TOKENS, budget is not None


def read_extras(members: dict[str, Any], prompt: Prompt, searches: int) -> frozenset[Extra]:
    """Return the parts of the request that need a listed price of their own. Raises Refused."""
    modalities, tools = members.get("modalities"), members.get("tools")
    extras = set()
    if searches:
        extras.add(Extra.WEB_SEARCH)
    if prompt.has_sound:
        extras.add(Extra.SOUND)
    if members.get("audio") is not None:
        extras.add(Extra.SPOKEN_REPLY)
    if modalities is not None:
        for kind in modalities if isinstance(modalities, list) else [modalities]:
            if not isinstance(kind, str) or kind not in ("text", *_REPLY_KINDS):
                raise unbounded("modalities", MODALITIES)
            if kind != "text":
                extras.add(_REPLY_KINDS[kind])
    long_cache = prompt.has_long_cache or asks_long_cache(members, "cache_control")
    for tool in tools or ():
        long_cache |= asks_long_cache(tool, "tools")
    if long_cache:
        extras.add(Extra.LONG_CACHE)
    return frozenset(extras) if extras else _NO_EXTRAS


def _refuse_unbounded(members: dict[str, Any]) -> None:
    for name in _UNBOUNDED_MEMBERS:
        if members.get(name) is not None:
            raise unbounded(name, advise_on_member(name))
    refuse_tier(members)
    # Functions and custom tools run at the client, and their text is counted. Any other tool runs,
    # and is billed, at the provider; those with a bound are read by `read_server_tools`.
    tools = members.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise invalid("tools", "a list")
    for tool in tools:
        if is_server_tool(tool):
            continue
        if not isinstance(tool, dict) or tool.get("type") not in CLIENT_TOOLS:
            raise unbounded("tools", advise_on_tool(tool))
        refuse_misspelt(tool, _TOOL_MEMBERS)


def refuse_tier(members: dict[str, Any]) -> None:
    """Refuse service tiers that cost a multiple of the listed price. Raises Refused."""
    tier = members.get("service_tier")
    if tier is not None and (not isinstance(tier, str) or tier not in _PLAIN_TIERS):
        raise unbounded("service_tier", SERVICE_TIER)
