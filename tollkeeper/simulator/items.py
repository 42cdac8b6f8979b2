"""Reads a request to ``/responses`` as the chat that says the same.

The items become messages and the tools those of a chat, so that one reader measures both.
"""

from collections.abc import Iterator
from typing import Any

from tollkeeper.simulator.answers.refusal import Refusal

Json = dict[str, Any]


def chat_from_items(asked: Json) -> Json:
    """Return the members of a chat; raises Refusal(400) for what OpenRouter would refuse too."""
    for name in ("previous_response_id", "conversation"):
        if asked.get(name) is not None:
            raise Refusal(400, f"{name} is not supported")
    if asked.get("store") is True or asked.get("background") is True:
        raise Refusal(400, "Responses are not stored")
    chat = {**asked, "messages": list(_messages(asked))}
    limit = asked.get("max_output_tokens")
    chat["max_completion_tokens"], chat["max_tokens"] = limit, None
    tools = asked.get("tools")
    chat["tools"] = list(_tools(tools if isinstance(tools, list) else []))
    choice = asked.get("tool_choice")
    chat["tool_choice"] = _nested(choice) if isinstance(choice, dict) else choice
    text = asked.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if isinstance(wanted, dict):
        chat["response_format"] = {"type": wanted.get("type"), "json_schema": wanted}
    return chat


def _messages(asked: Json) -> Iterator[Json]:
    if isinstance(asked.get("instructions"), str):
        yield {"role": "system", "content": asked["instructions"]}
    given = asked.get("input")
    if isinstance(given, str) and given:
        yield {"role": "user", "content": given}
    for item in given if isinstance(given, list) else []:
        if not isinstance(item, dict):
            raise Refusal(400, "An item of the input is not an object")
        match item.get("type", "message"):
            case "message":
                role = str(item.get("role"))
                yield {"role": role, "content": _parts(item.get("content"))}
            case "function_call" | "custom_tool_call":
                yield {"role": "assistant", "tool_calls": [_nested(item)]}
            case "function_call_output" | "custom_tool_call_output":
                yield {"role": "tool", "content": _parts(item.get("output"))}
            case _:
                yield {"role": "assistant", "content": None}


def _parts(content: object) -> object:
    if not isinstance(content, list):
        return content
    parts: list[Json] = []
    for part in content:
        if not isinstance(part, dict):
            raise Refusal(400, "A part of the input is not an object")
        if part.get("type") == "input_image":
            image = {"url": part.get("image_url"), "detail": part.get("detail")}
            parts.append({**part, "type": "image_url", "image_url": image})
        else:
            parts.append(part)
    return parts


def _tools(tools: list[Any]) -> Iterator[Json]:
    for tool in tools:
        if not isinstance(tool, dict):
            raise Refusal(400, "A tool is not an object")
        if tool.get("type") == "namespace":
            inner = tool.get("tools")
            yield from _tools(inner if isinstance(inner, list) else [])
        else:
            yield _nested(tool)


def _nested(tool: Json) -> Json:
    """A tool, a choice or a call as a chat has it: one level deeper."""
    is_custom = str(tool.get("type")).startswith("custom")
    kind = "custom" if is_custom else "function"
    return {"type": kind, kind: {name: one for name, one in tool.items() if name != "type"}}
