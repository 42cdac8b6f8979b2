"""Measures `input` of a body for /responses: one text, or a list of items of a conversation."""

from typing import Final

from authz.decision import Reason, Refused, deny, echo
from authz.endpoints.body import Body
from authz.endpoints.members import asks_long_cache, objects_of, refuse_misspelt, unbounded
from authz.endpoints.prompt import Prompt
from authz.endpoints.responses.tools import count_built_in_tools

# Items that are text of the body. The thoughts in `encrypted_content` are text too, and a cipher
# is not shorter than the text in it.
_TEXT_ITEMS: Final = frozenset(
    {
        *("function_call", "custom_tool_call", "reasoning"),
        *("local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"),
        *("apply_patch_call", "apply_patch_call_output", "tool_search_call"),
    }
)
# Items whose `output` is a text or a list of parts.
_OUTPUT_ITEMS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
# Items that stand for more than can be seen: summaries, pictures, pages that were found.
_OPAQUE_ITEMS: Final = frozenset(
    {"compaction", "context_compaction", "image_generation_call", "web_search_call"}
)
# Items that bring tools with them.
_TOOL_ITEMS: Final = frozenset({"additional_tools", "tool_search_output"})
_ITEM_MEMBERS: Final = frozenset({"type", "role", "id", "content", "output", "tools"})

_TEXT_PARTS: Final = frozenset(
    {"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"}
)
_PART_MEMBERS: Final = frozenset(
    {
        *("type", "image_url", "file_id", "file_data", "file_url", "input_audio", "video_url"),
        "cache_control",
    }
)
_PART_TYPES: Final = (
    "Give each part the 'type' 'input_text', 'output_text', 'input_image', 'input_file',"
    " 'input_audio' or 'input_video'."
)
_NOTHING_STORED: Final = (
    "An item of 'input' has an id and no content, and no response is kept here that it could mean."
    " Send the whole item."
)
_NOT_OURS: Final = (
    "Files that are stored at the provider cannot be named here. Send the content in 'image_url'."
)


def measure_input(body: Body) -> tuple[Prompt, int]:
    """Return the measures of the prompt, and how many tools without a definition are in it.

    Raises Refused for what cannot be bounded.
    """
    prompt, tools = Prompt(body.inline_chars), 0
    for item in objects_of(body.members.get("input"), "input"):
        refuse_misspelt(item, _ITEM_MEMBERS)
        prompt.has_long_cache |= asks_long_cache(item, "input")
        # An item without a type is a message, or the id of an item that was stored.
        kind = item.get("type") or ("message" if "role" in item else "item_reference")
        if kind == "message":
            _measure_content(item.get("content"), prompt, "input.content")
        elif not isinstance(kind, str):
            raise unbounded("input", "Give each item a 'type' that is a text.")
        elif kind in _OUTPUT_ITEMS:
            _measure_content(item.get("output"), prompt, "input.output")
        elif kind in _TOOL_ITEMS:
            tools += count_built_in_tools(item.get("tools"), "input.tools")
        elif kind in _OPAQUE_ITEMS:
            prompt.images += 1
            prompt.is_opaque = True
        elif kind == "item_reference":
            raise Refused(deny(Reason.INVALID_VALUE, _NOTHING_STORED, "input"))
        elif kind not in _TEXT_ITEMS:
            raise unbounded("input", f"Leave out items of the type '{echo(kind)}'.")
    return prompt, tools


def _measure_content(content: object, prompt: Prompt, param: str) -> None:
    """Measure a text, which is bounded by its bytes, or a list of parts. Raises Refused."""
    for part in objects_of(content, param):
        refuse_misspelt(part, _PART_MEMBERS)
        prompt.has_long_cache |= asks_long_cache(part, param)
        kind = part.get("type")
        if not isinstance(kind, str):
            raise unbounded(param, _PART_TYPES)
        if kind in _TEXT_PARTS:
            continue
        if kind == "input_image":
            if part.get("file_id") is not None:
                # All accounts share the provider's storage: an id would read another one's file.
                raise Refused(deny(Reason.INVALID_VALUE, _NOT_OURS, f"{param}.file_id"))
            prompt.add_image(part.get("image_url"), f"{param}.image_url")
        elif kind == "input_file":
            file = {name: part.get(name) for name in ("file_data", "file_id")}
            if file["file_data"] is None:
                file["file_data"] = part.get("file_url")
            prompt.add_file(file, param)
        elif kind == "input_audio":
            prompt.add_sound()
        elif kind == "input_video":
            prompt.add_video()
        else:
            raise unbounded(param, f"The part '{echo(kind)}' has no bound. {_PART_TYPES}")
