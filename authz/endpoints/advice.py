"""The sentences that say what to leave out, or to set instead, where a cost has no bound.

A refusal that only says "cannot be bounded" leaves its reader without a next step.
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.decision import echo

SEARCH_INSTEAD: Final = (
    "To search the web, use the tool {'type': 'openrouter:web_search'},"
    " or 'plugins': [{'id': 'web'}]."
)
TTL: Final = "Set 'ttl' to '5m' or '1h', the two durations that have a price, or leave it out."
PART_TYPES: Final = (
    "Give each part a 'type': 'text', 'image_url', 'input_audio', 'file' or 'video_url'."
)
DATA_INSTEAD: Final = (
    "An image is sent as 'data:image/...'. Send a document as a part of type 'file' with its"
    " 'data:' URL as 'file_data', and sound as 'input_audio'."
)
MODALITIES: Final = "Set a list of 'text', 'image' and 'audio', or leave it out."
SERVICE_TIER: Final = (
    "Other tiers cost a multiple of the listed price. Leave it out, or set 'auto', 'default',"
    " 'standard' or 'flex'."
)
PLUGINS: Final = (
    "Leave the plugin out. Those that can be bounded are 'web' (with 'max_results'),"
    " 'file-parser' (with 'pdf.engine'), 'response-healing' and 'context-compression'."
)
ENGINES: Final = (
    "Set 'engine' to 'exa', 'parallel' or 'perplexity', or leave it out. Nothing limits how often"
    " another engine is asked, or what it costs."
)
FILE_ENGINES: Final = (
    "Set 'pdf.engine' to 'cloudflare-ai' or 'native' (no price beside tokens) or 'mistral-ocr'"
    " (by the page), or leave the plugin out."
)
FILE_IDS: Final = (
    "Leave 'file_id' out: it names a file in the provider's store. Send the file as 'file_data', a"
    " 'data:' URL or an address."
)
FILE_PART: Final = "Send the file as a part of type 'file', with 'file_data'."
_UNKNOWN: Final = (
    "The member is not known here, so nobody can say what it costs. Leave it out, or ask the"
    " operator to add it."
)
_MEMBERS: Final[Mapping[str, str]] = {
    "preset": (
        "It stands for parameters that are stored at the provider, where they cannot be read."
        " Leave it out, and write its model and its parameters into the body."
    ),
    "search_parameters": f"Leave it out. {SEARCH_INSTEAD}",
    "x_search_filter": f"Leave it out. {SEARCH_INSTEAD}",
    "web_search": f"Leave it out. {SEARCH_INSTEAD}",
    "stop_server_tools_when": (
        "It replaces the limit of the calls of tools. Leave it out, and set 'max_tool_calls'."
    ),
    "moderation": "Leave it out: no price is listed for it.",
    "input_references": "Leave it out: no price is listed for a voice that is cloned.",
    "prompt_cache_options": (
        "Leave it out. Use 'prompt_cache_key', or 'cache_control' with a 'ttl' of '5m' or '1h'."
    ),
}
_TOOL_INSTEAD: Final = (
    "It runs, and is billed, at the provider. Leave it out, or offer your own function in its"
    " place ('type': 'function'). Tools of OpenRouter that can be bounded are"
    " 'openrouter:web_search' and 'openrouter:datetime'."
)


def advise_on_member(name: str) -> str:
    """Return what to do about a member of the body, known or not, that no rule can bound."""
    return _MEMBERS.get(name, _UNKNOWN)


def advise_on_tool(tool: object) -> str:
    """Return what to do about a tool that no rule can bound."""
    kind: Any = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        return "Give each tool a 'type': 'function' or 'custom' for tools of your own."
    return f"The tool '{echo(kind)}' has no bound. {_TOOL_INSTEAD}"
