"""POST /messages: replies to a conversation, in Anthropic's form (ADR 0005).

The rules are those of chats. They differ where the shape does: blocks of content instead of parts,
tools that Anthropic defines and the client runs, and a budget of thinking under another name.
"""

from functools import partial
from typing import Any, Final

from authz.decision import Deny, Reason, Refused, deny, echo
from authz.endpoints import openrouter
from authz.endpoints.body import Body, read_body
from authz.endpoints.demand import (
    LEAST_THOUGHT_TOKENS,
    MAX_TOKENS_NAMED,
    Replies,
    read_extras,
    refuse_tier,
    to_demand,
)
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.members import (
    asks_long_cache,
    count,
    invalid,
    objects_of,
    refuse_misspelt,
    refuse_unknown,
    unbounded,
)
from authz.endpoints.prompt import Prompt
from meter.pricing.prices import Demand

# The instructions that Anthropic adds for one tool of its own: 735 tokens for the largest that is
# documented, and 499 beside it.
CLIENT_TOOL_TOKENS: Final = 2_048
# Tools that Anthropic defines and the client runs. All others run, and are billed, at the provider.
CLIENT_TOOLS: Final = frozenset(
    {
        *("bash_20241022", "bash_20250124", "memory_20250818"),
        *("text_editor_20241022", "text_editor_20250124"),
        *("text_editor_20250429", "text_editor_20250728"),
        *("computer_20241022", "computer_20250124", "computer_20251124"),
    }
)
# They take earlier tool results and thoughts out of the prompt, at no price.
FREE_CONTEXT_EDITS: Final = frozenset({"clear_tool_uses_20250919", "clear_thinking_20251015"})

_LIMIT_MEMBER: Final = "max_tokens"
_COST_MEMBERS: Final = frozenset(
    {
        *openrouter.COST_MEMBERS,
        *("model", _LIMIT_MEMBER, "messages", "system", "tools", "thinking", "output_config"),
        *("context_management", "cache_control", "service_tier", "speed"),
    }
)
# Their text is part of the prompt, or they choose among replies, or among providers whose prices
# are bounded, or say who is told of the request.
_HARMLESS_MEMBERS: Final = frozenset(
    {
        *("stop_sequences", "stream", "temperature", "top_k", "top_p", "tool_choice"),
        *("metadata", "user", "session_id", "trace"),
    }
)
KNOWN_MEMBERS: Final = (_COST_MEMBERS | _HARMLESS_MEMBERS) - {*openrouter.UNBOUNDED_MEMBERS}
_THINKING_MEMBERS: Final = frozenset({"type", "budget_tokens", "display"})
_OUTPUT_MEMBERS: Final = frozenset({"effort", "format", "task_budget"})
_TOOL_MEMBERS: Final = frozenset({"type", "cache_control"})
_BLOCK_MEMBERS: Final = frozenset(
    {"type", "source", "content", "citations", "cache_control", "data", "media_type", "url"}
)
# Their bytes bound their tokens. Thoughts come back enciphered, which makes them no shorter.
_TEXT_BLOCKS: Final = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
_BLOCKS_WITH_CONTENT: Final = frozenset({"tool_result", "search_result"})
_CONTENT: Final = "messages.content"
_FALLBACKS: Final = "Name the models in 'models', a list of ids; each of them is priced."
_SERVER_TOOL: Final = (
    "It runs, and is billed, at the provider. Leave it out, or give a tool of your own with an "
    "'input_schema'."
)
_SPEED: Final = "Its price is not listed. Leave it out, or set 'standard'."
_COMPACTION: Final = (
    "Summaries are written, and billed, beside the reply. Leave it out, or use 'clear_tool_uses' "
    "and 'clear_thinking'."
)
_BLOCK: Final = (
    "Send 'text', 'image', 'document', 'tool_use', 'tool_result', 'search_result', or a 'thinking' "
    "block of an earlier reply."
)


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded.

    `is_online` is true when the name of a model asks for web search.
    """
    members = body.members
    try:
        refuse_misspelt(members, _COST_MEMBERS)
        if members.get("fallbacks") is not None:
            raise unbounded("fallbacks", _FALLBACKS)
        refuse_unknown(members, KNOWN_MEMBERS)
        _refuse_dearer(members)
        openrouter.read_price_limits(members)
        own_tools = _count_client_tools(members.get("tools"))
        prompt = _measure(body)
        plugins = openrouter.read_plugins(members, is_online)
        replies = _read_replies(members)
        extras = read_extras(members, prompt, plugins.searches)
    except Refused as refused:
        return refused.deny
    return to_demand(body, prompt, replies, plugins, extras, own_tools * CLIENT_TOOL_TOKENS)


def _refuse_dearer(members: dict[str, Any]) -> None:
    """Refuse what is billed at prices that no listing names. Raises Refused."""
    if members.get("speed") not in (None, "standard"):
        raise unbounded("speed", _SPEED)
    refuse_tier(members)
    management = members.get("context_management")
    if management is None:
        return
    edits = management.get("edits") if isinstance(management, dict) else None
    if not isinstance(edits, list) or not all(isinstance(edit, dict) for edit in edits):
        raise invalid("context_management", "an object with 'edits', a list of objects")
    refuse_unknown(management, frozenset({"edits"}), "context_management.")
    for edit in edits:
        if edit.get("type") not in FREE_CONTEXT_EDITS:
            raise unbounded("context_management.edits", _COMPACTION)


def _count_client_tools(tools: object) -> int:
    """Return the number of tools that Anthropic defines and the client runs. Raises Refused."""
    if tools is None:
        return 0
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise invalid("tools", "a list of objects")
    found = 0
    for tool in tools:
        refuse_misspelt(tool, _TOOL_MEMBERS)
        kind = tool.get("type")
        if isinstance(kind, str) and kind in CLIENT_TOOLS:
            found += 1
        elif kind not in (None, "custom"):
            raise unbounded(
                "tools", f"The tool '{echo(str(kind))}' is the provider's. {_SERVER_TOOL}"
            )
    return found


def _read_replies(members: dict[str, Any]) -> Replies:
    """Return the reply that the body asks for. Raises Refused."""
    thought, is_bounded = 0, False
    output = members.get("output_config")
    if output is not None:
        if not isinstance(output, dict):
            raise invalid("output_config", "an object")
        refuse_misspelt(output, _OUTPUT_MEMBERS)
        refuse_unknown(output, _OUTPUT_MEMBERS, "output_config.")
        if output.get("effort") is not None:
            thought = LEAST_THOUGHT_TOKENS
    thinking = members.get("thinking")
    if thinking is not None:
        if not isinstance(thinking, dict):
            raise invalid("thinking", "an object")
        refuse_misspelt(thinking, _THINKING_MEMBERS)
        refuse_unknown(thinking, _THINKING_MEMBERS, "thinking.")
        # Some models behind OpenRouter count a budget on top of the reply's limit.
        name = "budget_tokens"
        budget = count(thinking, name, MAX_TOKENS_NAMED, f"thinking.{name}")
        # A budget below the least is raised to it, and thinking of another type has none.
        is_bounded = budget is not None and thinking.get("type") in ("enabled", "disabled")
        if thinking.get("type") != "disabled":
            thought = max(thought, budget or 0, LEAST_THOUGHT_TOKENS)
    limit = count(members, _LIMIT_MEMBER, MAX_TOKENS_NAMED)
    return Replies(limit, choices=1, extra_tokens=thought, bounds_thought=is_bounded)


def _measure(body: Body) -> Prompt:
    """Measure the blocks of the conversation. Raises Refused."""
    prompt = Prompt(body.inline_chars)
    _measure_content(body.members.get("system"), prompt, "system")
    messages = body.members.get("messages")
    if messages is None:
        return prompt
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise invalid("messages", "a list of objects")
    for message in messages:
        refuse_misspelt(message, _BLOCK_MEMBERS)
        prompt.has_long_cache |= asks_long_cache(message, "messages")
        _measure_content(message.get("content"), prompt, _CONTENT)
    return prompt


def _measure_content(content: object, prompt: Prompt, param: str) -> None:
    """Measure a text, which is bounded by its bytes, or a list of blocks."""
    for block in objects_of(content, param):
        _measure_block(block, prompt, param)


def _measure_block(block: dict[str, Any], prompt: Prompt, param: str) -> None:
    refuse_misspelt(block, _BLOCK_MEMBERS)
    prompt.has_long_cache |= asks_long_cache(block, param)
    kind = block.get("type")
    if not isinstance(kind, str):
        raise unbounded(param, _BLOCK)
    if kind in _TEXT_BLOCKS:
        return
    if kind == "tool_reference":
        # It stands for the whole definition of a tool, each time it is named.
        prompt.is_opaque = True
        return
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled") is not False:
        # The text is cut into sentences, each with a mark of unknown length.
        prompt.is_opaque = True
    if kind in _BLOCKS_WITH_CONTENT:
        _measure_content(block.get("content"), prompt, param)
    elif kind in ("image", "document"):
        source = block.get("source")
        if not isinstance(source, dict):
            raise invalid(f"{param}.source", "an object")
        refuse_misspelt(source, _BLOCK_MEMBERS)
        if kind == "image":
            _measure_image(source, prompt, param)
        else:
            _measure_document(source, prompt, param)
    else:
        raise unbounded(param, f"The block '{echo(kind)}' has no bound. {_BLOCK}")


def _measure_image(source: dict[str, Any], prompt: Prompt, param: str) -> None:
    kind, content = source.get("type"), source.get("data")
    if kind == "file":
        raise _not_ours(param)
    if kind == "url":
        prompt.add_image(source.get("url"), f"{param}.source.url")
        return
    if kind != "base64" or not isinstance(content, str):
        raise invalid(f"{param}.source", "an image as 'base64' or at a 'url'")
    media_type = source.get("media_type")
    # A provider may read a document, or sound, that is sent as a picture.
    if not isinstance(media_type, str) or not media_type.startswith("image/"):
        raise invalid(f"{param}.source.media_type", "that of an image, such as 'image/png'")
    # These bytes of the body are the image itself.
    prompt.inline_bytes += len(content)
    prompt.images += 1


def _measure_document(source: dict[str, Any], prompt: Prompt, param: str) -> None:
    kind = source.get("type")
    if kind == "file":
        raise _not_ours(param)
    if kind == "content":
        _measure_content(source.get("content"), prompt, param)
    elif kind in ("base64", "url"):
        prompt.add_document()
    elif kind != "text":
        raise invalid(f"{param}.source", "'text', 'content', 'base64' or 'url'")


def _not_ours(param: str) -> Refused:
    # All accounts share the provider's storage: an id would read another one's file.
    message = "Files that are stored at the provider cannot be named here. Send the content itself."
    return Refused(deny(Reason.INVALID_VALUE, message, f"{param}.source"))


MESSAGES: Final = Endpoint(
    name="messages",
    paths=("messages",),
    read=read_body,
    bound=bound,
    # Of the names in chats, this path reads one: a limit under the other would bound nothing.
    edits=partial(edit_body, limit_members=(_LIMIT_MEMBER,)),
)
