"""The most that a body can ask of a provider (rule R6), one small function a member.

Each rule says why its bound holds; docs/adr/0005-what-bounds-an-estimate.md has them as a table.
What no rule can bound is refused with `cost_unbounded`, naming the member.
"""

from dataclasses import dataclass
from typing import Any, Final

from authz.decision import Deny, Refused
from authz.endpoints.body import Body
from authz.endpoints.members import count, invalid, refuse_long_cache, refuse_misspelt, unbounded
from authz.endpoints.prompt import Prompt, measure_prompt
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand

MAX_TOKENS_NAMED: Final = 10_000_000
MAX_CHOICES: Final = 128
MAX_WEB_RESULTS: Final = 10
DEFAULT_WEB_RESULTS: Final = 5
# What OpenAI's gpt-4o-mini counts for one image at worst (48,169), rounded up to 48 Ki.
IMAGE_TOKENS: Final = 49_152
# More than any context: an estimate takes the model's context length instead.
WHOLE_CONTEXT_TOKENS: Final = 2**40

EMBEDDINGS: Final = "embeddings"
_FREE_PLUGINS: Final = frozenset({"response-healing", "context-compression"})
_WEB_PLUGIN_MEMBERS: Final = frozenset(
    {
        "id",
        "enabled",
        "max_results",
        "search_prompt",
        "engine",
        "include_domains",
        "exclude_domains",
    }
)
_REASONING_MEMBERS: Final = frozenset({"max_tokens"})
_TOOL_MEMBERS: Final = frozenset({"type", "cache_control"})
_PLAIN_TIERS: Final = frozenset({"auto", "default", "flex", "standard"})
# Presets carry parameters that we do not see; the others are billed apart from tokens.
_UNBOUNDED_MEMBERS: Final = ("preset", "web_search_options", "search_parameters", "audio")
_COST_MEMBERS: Final = frozenset(
    {
        *_UNBOUNDED_MEMBERS,
        *("model", "models", "max_tokens", "max_completion_tokens", "n", "best_of"),
        *("prediction", "reasoning", "modalities", "plugins", "tools", "service_tier"),
        *("messages", "prompt", "input", "cache_control", "route"),
    }
)


@dataclass(frozen=True, slots=True)
class _Replies:
    """The replies that a body asks for."""

    limit_tokens: int | None
    choices: int
    extra_tokens: int


def bound_demand(endpoint: str, body: Body, is_online: bool) -> Demand | Deny:
    """Bound what the body may ask for; `is_online` when a model's suffix asks for web search."""
    try:
        return _bound(endpoint, body, is_online)
    except Refused as refused:
        return refused.deny


def _bound(endpoint: str, body: Body, is_online: bool) -> Demand:
    members = body.members
    refuse_misspelt(members, _COST_MEMBERS)
    for rule in (_no_unbounded_members, _no_media_output, _no_priority_tier, _only_functions):
        rule(members)
    replies = _replies(endpoint, body)
    searches = max(_web_searches(members), DEFAULT_WEB_RESULTS if is_online else 0)
    prompt = measure_prompt(members)
    times = replies.choices
    return Demand(
        prompt_tokens=times * _prompt_tokens(body, prompt, searches),
        completion_tokens=replies.limit_tokens,
        choices=times * prompt.prompts,
        extra_completion_tokens=replies.extra_tokens,
        images=times * prompt.images,
        web_searches=searches * times * prompt.prompts,
        prompts=times * prompt.prompts,
    )


def _prompt_tokens(body: Body, prompt: Prompt, searches: int) -> int:
    """A token is at least one byte of the body; images are counted apart from their bytes.

    What is fetched from elsewhere (search results, videos) can fill the whole context.
    """
    if prompt.is_opaque or searches:
        return WHOLE_CONTEXT_TOKENS
    text_tokens = body.size_bytes - prompt.inline_bytes
    return text_tokens + PROMPT_OVERHEAD_TOKENS + prompt.images * IMAGE_TOKENS


def _replies(endpoint: str, body: Body) -> _Replies:
    members = body.members
    choices = max(count(members, name, MAX_CHOICES) or 1 for name in ("n", "best_of"))
    # Both are checked even where they do not count: a bad value is bad everywhere.
    limits = [
        limit
        for name in ("max_tokens", "max_completion_tokens")
        if (limit := count(members, name, MAX_TOKENS_NAMED)) is not None
    ]
    if endpoint == EMBEDDINGS:
        return _Replies(0, choices, 0)
    # Providers read one name or the other: the larger bounds both.
    limit = max(limits) if limits else None
    # Predicted tokens that the model rejects are billed as completion, beside the reply.
    return _Replies(
        limit,
        choices,
        _reasoning_tokens(members)
        + (0 if body.members.get("prediction") is None else body.size_bytes),
    )


def _reasoning_tokens(members: dict[str, Any]) -> int:
    """Some providers count a reasoning budget on top of the reply's limit."""
    reasoning = members.get("reasoning")
    if reasoning is None:
        return 0
    if not isinstance(reasoning, dict):
        raise invalid("reasoning", "an object")
    refuse_misspelt(reasoning, _REASONING_MEMBERS)
    return count(reasoning, "max_tokens", MAX_TOKENS_NAMED, "reasoning.max_tokens") or 0


def _no_unbounded_members(members: dict[str, Any]) -> None:
    for name in _UNBOUNDED_MEMBERS:
        if members.get(name) is not None:
            raise unbounded(name)
    refuse_long_cache(members, "cache_control")


def _no_media_output(members: dict[str, Any]) -> None:
    """Audio and image output is billed at prices that the catalogue does not have."""
    modalities = members.get("modalities")
    if modalities is None:
        return
    if not isinstance(modalities, list) or any(kind != "text" for kind in modalities):
        raise unbounded("modalities")


def _no_priority_tier(members: dict[str, Any]) -> None:
    """Other tiers cost a multiple of the listed price."""
    tier = members.get("service_tier")
    if tier is not None and (not isinstance(tier, str) or tier not in _PLAIN_TIERS):
        raise unbounded("service_tier")


def _only_functions(members: dict[str, Any]) -> None:
    """Functions run at the client; any other tool runs, and is billed, at the provider."""
    tools = members.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise invalid("tools", "a list")
    for tool in tools:
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise unbounded("tools")
        refuse_misspelt(tool, _TOOL_MEMBERS)
        refuse_long_cache(tool, "tools")


def _web_searches(members: dict[str, Any]) -> int:
    """Return the most web results of the plugins; unknown plugins cannot be bounded."""
    plugins = members.get("plugins")
    if plugins is None:
        return 0
    if not isinstance(plugins, list):
        raise invalid("plugins", "a list")
    return sum(_plugin_searches(plugin) for plugin in plugins)


def _plugin_searches(plugin: object) -> int:
    if not isinstance(plugin, dict):
        raise invalid("plugins", "a list of objects")
    refuse_misspelt(plugin, _WEB_PLUGIN_MEMBERS)
    identity = plugin.get("id")
    if isinstance(identity, str) and identity in _FREE_PLUGINS:
        return 0
    if identity != "web" or not plugin.keys() <= _WEB_PLUGIN_MEMBERS:
        raise unbounded("plugins")
    results = count(plugin, "max_results", MAX_WEB_RESULTS, "plugins.max_results")
    return DEFAULT_WEB_RESULTS if results is None else results
