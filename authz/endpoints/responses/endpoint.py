"""The endpoint /responses: the bound of a body, and its edits.

No response is kept for the next request, whoever serves it: OpenRouter keeps none, and at OpenAI
the responses of all accounts would lie under one key. So a body has the whole conversation, and
its bytes bound the prompt as those of a chat do.
"""

from functools import partial
from typing import Any, Final

from authz.decision import Deny, Reason, Refused, deny
from authz.endpoints import openrouter
from authz.endpoints.advice import advise_on_member
from authz.endpoints.body import Body, read_body
from authz.endpoints.demand import (
    MAX_TOKENS_NAMED,
    Replies,
    read_extras,
    read_thought,
    refuse_tier,
    to_demand,
)
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.harmless import REASONING_MEMBERS
from authz.endpoints.members import count, refuse_misspelt, refuse_unknown, unbounded
from authz.endpoints.responses.items import measure_input
from authz.endpoints.responses.tools import BUILT_IN_TOOL_TOKENS, count_built_in_tools
from authz.endpoints.server_tools import STEPS_MEMBER, read_server_tools
from meter.pricing.prices import Demand

LIMIT_MEMBER: Final = "max_output_tokens"

# The whole conversation stands in the body.
_STATELESS: Final = "No response is kept here."
_REFUSED: Final = {
    "previous_response_id": f"{_STATELESS} Send the whole conversation in 'input' instead.",
    "conversation": f"{_STATELESS} Send the whole conversation in 'input' instead.",
    "prompt": "Templates that are stored at the provider cannot be read here. Send their text in "
    "'instructions' and 'input' instead.",
    "messages": "This path takes the conversation in 'input'.",
    "max_tokens": f"This path names the limit of a reply '{LIMIT_MEMBER}'.",
    "max_completion_tokens": f"This path names the limit of a reply '{LIMIT_MEMBER}'.",
}
# Only these, or nothing, ask for a reply that comes at once and is kept nowhere.
_ONLY_FALSE: Final = {
    "store": f"{_STATELESS} Set it to false, or leave it out.",
    "background": "A request is charged by its own reply. Set it to false, or leave it out.",
}
_COST_MEMBERS: Final = frozenset(
    {
        *openrouter.COST_MEMBERS,
        *_REFUSED,
        *_ONLY_FALSE,
        *(LIMIT_MEMBER, STEPS_MEMBER),
        *("model", "input", "instructions", "reasoning", "modalities", "tools", "service_tier"),
        *("cache_control", "prompt_cache_options"),
    }
)
# Members that change no more than text and limits bound; the reasons are those of chats
# (`harmless.py`). `include` adds to the reply what was made anyway.
_HARMLESS_MEMBERS: Final = frozenset(
    {
        *("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty"),
        *("top_logprobs", "image_config", "text", "include", "truncation"),
        *("tool_choice", "parallel_tool_calls"),
        *("stream", "stream_options", "user", "metadata", "client_metadata", "session_id"),
        *("trace", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "debug"),
        *("provider", "route"),
    }
)
KNOWN_MEMBERS: Final = _COST_MEMBERS | _HARMLESS_MEMBERS
_REASONING_MEMBERS: Final = REASONING_MEMBERS | {"generate_summary", "context", "mode"}
# Explicit breakpoints choose what is cached. A longer life of a cache has no listed price.
_CACHE_OPTIONS: Final = frozenset({"mode"})


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded."""
    members = body.members
    try:
        refuse_misspelt(members, _COST_MEMBERS)
        refuse_unknown(members, KNOWN_MEMBERS)
        _refuse_unbounded(members)
        openrouter.read_price_limits(members)
        plugins = openrouter.read_plugins(members, is_online)
        server_tools = read_server_tools(members)
        thought = 0, False
        if members.get("reasoning") is not None:
            thought = read_thought(members["reasoning"], _REASONING_MEMBERS)
            if members["reasoning"].get("mode") not in (None, "standard"):
                raise unbounded("reasoning.mode", "Leave it out, or set it to 'standard'.")
        replies = Replies(count(members, LIMIT_MEMBER, MAX_TOKENS_NAMED), 1, *thought)
        prompt, tools = measure_input(body)
        tools += count_built_in_tools(members.get("tools"), "tools", takes_server_tools=True)
        extras = read_extras(members, prompt, plugins.searches)
    except Refused as refused:
        return refused.deny
    overhead_tokens = tools * BUILT_IN_TOOL_TOKENS
    return to_demand(body, prompt, replies, plugins, extras, overhead_tokens, server_tools)


def _refuse_unbounded(members: dict[str, Any]) -> None:
    for name, why in _REFUSED.items():
        if members.get(name) is not None:
            raise _refusal(name, f"'{name}' cannot be used at this path. {why}")
    for name, why in _ONLY_FALSE.items():
        if members.get(name) not in (None, False):
            raise _refusal(name, f"'{name}' must be false. {why}")
    for name in openrouter.UNBOUNDED_MEMBERS:
        if members.get(name) is not None:
            raise unbounded(name, advise_on_member(name))
    refuse_tier(members)
    if not isinstance(members.get("instructions"), str | None):
        raise _refusal("instructions", "'instructions' must be a string, or null.")
    options = members.get("prompt_cache_options")
    if options is not None:
        if not isinstance(options, dict):
            raise _refusal("prompt_cache_options", "'prompt_cache_options' must be an object.")
        refuse_unknown(options, _CACHE_OPTIONS, "prompt_cache_options.")


def _refusal(param: str, message: str) -> Refused:
    return Refused(deny(Reason.INVALID_VALUE, message, param))


RESPONSES: Final = Endpoint(
    name="responses",
    paths=("responses",),
    read=read_body,
    bound=bound,
    # OpenAI keeps responses unless it is told not to.
    edits=partial(edit_body, limit_members=(LIMIT_MEMBER,), constants=(("store", "false"),)),
)
