"""Reads a request to ``/messages`` as the chat that says the same.

Blocks become parts and the tools those of a chat, so that one reader measures both.
"""

import json
from collections.abc import Iterator
from typing import Any

from tollkeeper.simulator.answers.refusal import Refusal

Json = dict[str, Any]

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_from_blocks(asked: Json) -> Json:
    """Return the members of a chat; raises Refusal(400) for what Anthropic would refuse too."""
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "messages: at least one message is required")
    chat = {**asked, "messages": [*_system(asked.get("system"))]}
    for message in messages:
        if not isinstance(message, dict):
            raise Refusal(400, "messages: a message is not an object")
        chat["messages"] += _messages(message)
    tools = asked.get("tools")
    chat["tools"] = [_tool(tool) for tool in tools] if isinstance(tools, list) else None
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        named = {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = _CHOICES.get(str(choice.get("type")), named)
    thinking = asked.get("thinking")
    thinks = isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")
    chat["reasoning"] = {"enabled": thinks}
    output = asked.get("output_config")
    wanted = output.get("format") if isinstance(output, dict) else None
    if isinstance(wanted, dict):
        chat["response_format"] = {"type": wanted.get("type"), "json_schema": wanted}
    return chat


def _system(content: object) -> Iterator[Json]:
    if content:
        yield {"role": "system", "content": _parts(content)}


def _messages(message: Json) -> Iterator[Json]:
    """A message, with the results of tools before it as messages of their own."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise Refusal(400, "messages.role: must be 'user', 'assistant' or 'system'")
    blocks = content if isinstance(content, list) else []
    calls = []
    for block in blocks:
        if not isinstance(block, dict):
            raise Refusal(400, "messages.content: a block is not an object")
        if block.get("type") == "tool_result":
            yield {"role": "tool", "content": _parts(block.get("content"))}
        elif block.get("type") == "tool_use":
            arguments = json.dumps(block.get("input"))
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
    rest = [b for b in blocks if b.get("type") not in ("tool_result", "tool_use")]
    if rest or calls or not blocks:
        said: Json = {"role": role, "content": _parts(rest if blocks else content)}
        yield {**said, "tool_calls": calls} if calls else said


def _parts(content: object) -> object:
    if not isinstance(content, list):
        return content
    return [_part(block) for block in content if isinstance(block, dict)]


def _part(block: Json) -> Json:
    source = block.get("source")
    if block.get("type") == "image" and isinstance(source, dict):
        url = source.get("url")
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        return {**block, "type": "image_url", "image_url": {"url": url}}
    text = block.get("text", block.get("thinking"))
    if text is None and isinstance(source, dict):
        text = source.get("data")
    return {**block, "type": "text", "text": text}


def _tool(tool: object) -> Json:
    if not isinstance(tool, dict):
        raise Refusal(400, "tools: a tool is not an object")
    function = {name: tool.get(name) for name in ("name", "description")}
    function["parameters"] = tool.get("input_schema")
    return {"type": "function", "function": function}
