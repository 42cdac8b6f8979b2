"""The bytes of an answer to ``/responses``: one JSON object, or the events of a stream."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from tollkeeper.simulator.answers.answering import Answer, Choice
from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.pieces import DONE, pieces_of_text
from tollkeeper.simulator.dialects.dialect import ProviderDialect

Json = dict[str, Any]

# A chat's names of the members of usage, and those of a response.
_USAGE_NAMES = (
    ('"prompt_tokens"', '"input_tokens"'),
    ('"completion_tokens"', '"output_tokens"'),
    ('"prompt_tokens_details"', '"input_tokens_details"'),
    ('"completion_tokens_details"', '"output_tokens_details"'),
    ('"upstream_inference_prompt_cost"', '"upstream_inference_input_cost"'),
    ('"upstream_inference_completions_cost"', '"upstream_inference_output_cost"'),
)
# What a response always has, and chats may leave out.
_DETAILS = {
    '"input_tokens_details"': '{"cached_tokens":0}',
    '"output_tokens_details"': '{"reasoning_tokens":0}',
}
_NO_USAGE = ',"usage":null}'
_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Members of a request that its response repeats, and what it says of one that has none."""


def usage_of_response(chat_usage: str) -> str:
    """Return the JSON text of usage under the names of a response. No digit changes."""
    for name, other in _USAGE_NAMES:
        chat_usage = chat_usage.replace(name, other)
    for name, none in _DETAILS.items():
        if name not in chat_usage:
            chat_usage = f"{chat_usage[:-1]},{name}:{none}}}"
    if '"cache_write_tokens"' not in chat_usage:
        chat_usage = chat_usage.replace(
            '"cached_tokens"', '"cache_write_tokens":0,"cached_tokens"', 1
        )
    return chat_usage


def response_id(dialect: ProviderDialect, answer: Answer, behaviour: Behaviour) -> str:
    """Return the id in the body. OpenRouter has another one, in a header, for its own record."""
    if behaviour.omit_generation_id or not dialect.has_openrouter_members:
        return answer.generation_id
    return f"resp_{_letters(answer)}"


def response_body(answer: Answer, choice: Choice, own_id: str, usage: str) -> bytes:
    """Return the reply as a whole. ``usage`` is its member, as text."""
    whole = _response(answer, own_id, _status(choice), list(_items(answer, choice)))
    return (_json(whole).removesuffix(_NO_USAGE) + usage + "}").encode()


def response_events(
    dialect: ProviderDialect, answer: Answer, own_id: str, usages: list[str], *, breaks_off: bool
) -> list[bytes]:
    """Return the events of a stream, each with its blank line.

    Each of ``usages`` is the member of one last event, as text; ``breaks_off`` ends the stream
    halfway with an error in their place.
    """
    (choice,) = answer.choices
    items = list(_items(answer, choice))
    begun = _response(answer, own_id, "in_progress", [])
    events: list[Json] = [
        {"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")
    ]
    for index, item in enumerate(items):
        events += _item_events(index, item)
    if breaks_off:
        # The status has been sent: a failure is reported in this way.
        del events[len(events) // 2 + 1 :]
        failed = _response(answer, own_id, "failed", [])
        failed["error"] = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
        events.append({"type": "response.failed", "response": failed})
    else:
        status = _status(choice)
        end = {"type": f"response.{status}", "response": _response(answer, own_id, status, items)}
        events += [end] * len(usages)
    texts = [_json({"sequence_number": number, **one}) for number, one in enumerate(events)]
    if not breaks_off:
        last = slice(-len(usages), None)
        texts[last] = [
            text.removesuffix(_NO_USAGE + "}") + usage + "}}"
            for text, usage in zip(texts[last], usages, strict=True)
        ]
    is_openrouter = dialect.has_openrouter_members
    names = ["" if is_openrouter else f"event: {one['type']}\n" for one in events]
    ends = [DONE] if is_openrouter else []
    data = (f"{name}data: {text}\n\n".encode() for name, text in zip(names, texts, strict=True))
    return [*dialect.first_events, *data, *ends]


def _status(choice: Choice) -> str:
    return "incomplete" if choice.finish_reason == "length" else "completed"


def _response(answer: Answer, own_id: str, status: str, items: list[Json]) -> Json:
    """The response as it stands; its usage is the last member."""
    asked = answer.ask.members
    begun_at = int(answer.at.timestamp())
    reasoning, text = asked.get("reasoning"), asked.get("text")
    return {
        "id": own_id,
        "object": "response",
        "created_at": begun_at,
        "completed_at": begun_at if status == "completed" else None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": answer.model.id,
        "output": items,
        "previous_response_id": None,
        "reasoning": reasoning if isinstance(reasoning, dict) else {},
        "service_tier": "default",
        "store": False,
        "text": text if isinstance(text, dict) else {"format": {"type": "text"}},
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        **{name: asked.get(name) or usual for name, usual in _ECHOED.items()},
        "usage": None,
    }


def _items(answer: Answer, choice: Choice) -> Iterator[Json]:
    letters = _letters(answer)
    if choice.reasoning:
        thought = {"type": "summary_text", "text": choice.reasoning}
        item: Json = {"id": f"rs_{letters}", "type": "reasoning", "summary": [thought]}
        include = answer.ask.members.get("include")
        if isinstance(include, list) and "reasoning.encrypted_content" in include:
            item["encrypted_content"] = base64.b64encode(choice.reasoning.encode()).decode()
        yield item
    if choice.tool_name is None:
        part = {"type": "output_text", "text": choice.text, "annotations": [], "logprobs": []}
        yield {
            "id": f"msg_{letters}",
            "type": "message",
            "status": _status(choice),
            "role": "assistant",
            "content": [part],
        }
        return
    call = {"status": "completed", "call_id": choice.tool_call_id, "name": choice.tool_name}
    if choice.is_free_text:
        yield {"id": f"ctc_{letters}", "type": "custom_tool_call", **call, "input": choice.text}
    else:
        yield {"id": f"fc_{letters}", "type": "function_call", **call, "arguments": choice.text}


def _item_events(index: int, item: Json) -> Iterator[Json]:
    """The events in which one item arrives: opened, filled piece by piece, and closed."""
    match item["type"]:
        case "reasoning":
            member, inner, filled = "summary", "summary_index", "reasoning_summary_text"
        case "message":
            member, inner, filled = "content", "content_index", "output_text"
        case "custom_tool_call":
            member, inner, filled = "input", "", "custom_tool_call_input"
        case _:
            member, inner, filled = "arguments", "", "function_call_arguments"
    added: Json = {"output_index": index}
    at: Json = {"item_id": item["id"], **added}
    empty = {**item, member: type(item[member])(), "status": "in_progress"}
    yield {"type": "response.output_item.added", **added, "item": empty}
    text, whole = item[member], {member: item[member]}
    part_event = "reasoning_summary_part" if member == "summary" else "content_part"
    if inner:
        at[inner] = 0
        (part,) = item[member]
        text, whole = part["text"], {"text": part["text"]}
        yield {"type": f"response.{part_event}.added", **at, "part": {**part, "text": ""}}
    if member == "content":
        whole["logprobs"] = []
    for piece in pieces_of_text(text):
        delta = {**whole, "delta": piece}
        delta.pop("text" if inner else member)
        yield {"type": f"response.{filled}.delta", **at, **delta}
    named = {"name": item["name"]} if member == "arguments" else {}
    yield {"type": f"response.{filled}.done", **at, **whole, **named}
    if inner:
        yield {"type": f"response.{part_event}.done", **at, "part": part}
    yield {"type": "response.output_item.done", **added, "item": item}


def _letters(answer: Answer) -> str:
    return answer.generation_id.replace("_", "-").rpartition("-")[2]


def _json(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))
