"""The bytes of an answer to ``/messages``: one JSON object, or the events of a stream.

As OpenRouter documents it, the usage of a whole reply names its cost, and that of a stream does
not. The tokens of the cache stand beside those of the input.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

from tollkeeper.simulator.answers.answering import Answer, Choice
from tollkeeper.simulator.answers.errors import anthropic_error
from tollkeeper.simulator.answers.pieces import DONE, pieces_of_text
from tollkeeper.simulator.dialects.dialect import ProviderDialect

Json = dict[str, Any]

START_TOKENS = 1
"""Tokens of the reply that the usage at the start of a stream names, whatever follows."""
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_COST_MEMBERS = ("cost", "is_byok", "cost_details")


def usage_of_message(chat_usage: str) -> str:
    """Return the JSON text of usage as Messages have it. No digit of a cost changes."""
    chat = json.loads(chat_usage)
    details = chat.get("prompt_tokens_details", {})
    cached, written = details.get("cached_tokens", 0), details.get("cache_write_tokens", 0)
    thought = chat.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    usage = {
        "input_tokens": chat["prompt_tokens"] - cached - written,
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"thinking_tokens": thought},
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "inference_geo": None,
        "server_tool_use": None,
        "service_tier": "standard",
    }
    costs, decoder = "", json.JSONDecoder()
    for name in _COST_MEMBERS:
        start = chat_usage.find(f'"{name}":')
        if start >= 0:
            _, end = decoder.raw_decode(chat_usage, start + len(name) + 3)
            costs += "," + chat_usage[start:end]
    return f"{_json(usage)[:-1]}{costs}}}"


def message_body(dialect: ProviderDialect, answer: Answer, choice: Choice, usage: str) -> bytes:
    """Return the reply as a whole. ``usage`` is its member, as text."""
    whole = _message(dialect, answer, list(_blocks(choice)), _STOP_REASONS[choice.finish_reason])
    return f"{_json(whole)[:-1]}{usage}}}".encode()


def message_events(
    dialect: ProviderDialect,
    answer: Answer,
    usages: list[str],
    *,
    breaks_off: bool,
    ends_first: bool,
) -> list[bytes]:
    """Return the events of a stream, each whole and with its blank line, in order.

    Each of ``usages`` is the member of one last event, as text; the first says how the stream
    begins, too. ``breaks_off`` ends the stream halfway with an error in their place, and
    ``ends_first`` has usage after the event that ends the stream.
    """
    (choice,) = answer.choices
    members = [_without_costs(usage) for usage in usages]
    start = _message(dialect, answer, [], None)
    if begun := members[0].get("usage"):
        start["usage"] = {**begun, "output_tokens": min(START_TOKENS, begun["output_tokens"])}
    else:
        start |= members[0]
    events: list[Json] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(_blocks(choice)):
        events += _block_events(index, block)
    if breaks_off:
        # The status has been sent: a failure is reported in this way.
        del events[len(events) // 2 + 1 :]
        events.append(anthropic_error(502, "Provider disconnected unexpectedly"))
    else:
        said: Json = {"stop_reason": _STOP_REASONS[choice.finish_reason], "stop_sequence": None}
        delta = {"type": "message_delta", "delta": {**said, "container": None}}
        ends = [{**delta, **member} for member in members]
        stop: Json = {"type": "message_stop"}
        events += [stop, *ends] if ends_first else [*ends, stop]
    end = [DONE] if dialect.has_openrouter_members else []
    return [*dialect.first_events, *map(_event, events), *end]


def _without_costs(usage: str) -> Json:
    """The member of usage in an event, from its text in a whole reply; empty without one."""
    members: Json = json.loads(f"{{{usage.removeprefix(',')}}}")
    for name in _COST_MEMBERS:
        if members.get("usage"):
            members["usage"].pop(name, None)
    return members


def _message(
    dialect: ProviderDialect, answer: Answer, content: list[Json], stop_reason: str | None
) -> Json:
    served_by = {"provider": answer.model.provider} if dialect.has_openrouter_members else {}
    return {
        "id": answer.generation_id,
        "type": "message",
        "role": "assistant",
        "model": answer.model.id,
        **served_by,
        "content": content,
        "container": None,
        "stop_details": None,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }


def _blocks(choice: Choice) -> Iterator[Json]:
    if choice.reasoning:
        signature = base64.b64encode(choice.reasoning.encode()).decode()
        yield {"type": "thinking", "thinking": choice.reasoning, "signature": signature}
    if choice.tool_name is not None:
        given = json.loads(choice.text)
        call_id = choice.tool_call_id.replace("call_", "toolu_01", 1)
        caller = {"type": "direct"}
        yield {
            "type": "tool_use",
            "id": call_id,
            "name": choice.tool_name,
            "input": given,
            "caller": caller,
        }
    elif choice.text:
        yield {"type": "text", "text": choice.text, "citations": None}


def _block_events(index: int, block: Json) -> Iterator[Json]:
    deltas: list[Json] = []
    match block["type"]:
        case "thinking":
            pieces = pieces_of_text(block["thinking"])
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            block = {**block, "thinking": "", "signature": ""}
        case "tool_use":
            pieces = pieces_of_text(json.dumps(block["input"], ensure_ascii=False))
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            block = {**block, "input": {}}
        case _:
            pieces = pieces_of_text(block["text"])
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
            block = {**block, "text": ""}
    yield {"type": "content_block_start", "index": index, "content_block": block}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _event(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {_json(event)}\n\n".encode()


def _json(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))
