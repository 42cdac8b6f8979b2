"""The bytes of an answer: one JSON object, or a list of server-sent events.

Costs are spliced in as decimal text: a float on the way would not be the bill's number.
"""

import json
import zlib
from collections.abc import Iterator

from tollkeeper.simulator.answers.answering import Answer, Choice
from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.pricing import to_usd

DIMENSIONS_DEFAULT = 1536
PIECE_MIN_CHARS = 20
PIECES_MAX = 2_000
PROCESSING = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"

# Usage that says nothing, and usage that says less than the one before.
ZERO_USAGE = '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"cost":0}'
LESSER_USAGE = '{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.000000000001}'
_LATER_USAGE = {"zeros_after": ZERO_USAGE, "lesser_after": LESSER_USAGE}
_JSON_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion",
    Endpoint.COMPLETIONS: "text_completion",
}
_CHUNK_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}


def usage_text(answer: Answer, behaviour: Behaviour) -> str:
    """The ``usage`` object as JSON text."""
    usage = answer.usage
    cost = "0" if behaviour.zero_cost else to_usd(answer.cost_picos)
    if behaviour.wrong_cost is not None:
        cost = behaviour.wrong_cost
    named = {"negative": f"-{cost}", "text": f'"{cost}"', "null": "null"}
    named_cost = cost if behaviour.cost_form is None else named.get(behaviour.cost_form)
    cost_member = "" if named_cost is None else f',"cost":{named_cost}'
    return (
        f'{{"prompt_tokens":{usage.prompt_tokens}'
        f',"completion_tokens":{usage.completion_tokens}'
        f',"total_tokens":{usage.total_tokens}'
        f'{cost_member},"is_byok":false'
        f',"prompt_tokens_details":{{"cached_tokens":{usage.cached_tokens}'
        f',"cache_write_tokens":{usage.cache_write_tokens}'
        f',"audio_tokens":{usage.audio_tokens}}}'
        f',"cost_details":{{"upstream_inference_cost":{cost}}}'
        f',"completion_tokens_details":{{"reasoning_tokens":{usage.reasoning_tokens}}}}}'
    )


def json_body(answer: Answer, behaviour: Behaviour, vocabulary: Vocabulary) -> bytes:
    """The reply to a request that did not ask for a stream."""
    usage = _usage_member(answer, behaviour)
    if answer.ask.endpoint is Endpoint.EMBEDDINGS:
        dimensions = answer.ask.dimensions or DIMENSIONS_DEFAULT
        starts = map(zlib.crc32, answer.ask.inputs)
        if answer.ask.is_base64:
            texts = [f'"{vocabulary.vector_base64(start, dimensions)}"' for start in starts]
        else:
            texts = [vocabulary.vector_text(start, dimensions) for start in starts]
        vectors = ",".join(
            f'{{"object":"embedding","index":{index},"embedding":{text}}}'
            for index, text in enumerate(texts)
        )
        return (
            f'{{"object":"list","data":[{vectors}],"model":{json.dumps(answer.model.id)}'
            f',"id":"{answer.generation_id}"{usage}}}'
        ).encode()
    body = _completion_body(answer, answer.choices, usage)
    if behaviour.reply_bytes is not None and len(body) < behaviour.reply_bytes:
        padding = " " + "x" * (behaviour.reply_bytes - len(body) - 1)
        first, *others = answer.choices
        longer = Choice(
            text=first.text + padding,
            finish_reason=first.finish_reason,
            reasoning=first.reasoning,
        )
        return _completion_body(answer, ((longer, *others)), usage)
    return body


def sse_events(answer: Answer, behaviour: Behaviour) -> list[bytes]:
    """The events of a stream, each whole and with its blank line, in order."""
    usage = _usage_member(answer, behaviour)
    events = [PROCESSING, *_text_events(answer)]
    if behaviour.error_midstream:
        # OpenRouter reports a failure after the status has been sent in this way.
        chunk = _chunk(
            answer,
            [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        )
        chunk["error"] = {"code": 502, "message": "Provider disconnected unexpectedly"}
        events = [*events[: len(events) // 2 + 1], _data(chunk, ""), DONE]
    elif behaviour.usage_after_done:
        events += [DONE, _event(answer, [], usage)]
    else:
        later = _LATER_USAGE.get(behaviour.usage_placeholder or "")
        extra = [] if later is None else [_event(answer, [], f',"usage":{later}')]
        events += [_event(answer, [], usage), *extra, DONE] if usage else [DONE]
    if behaviour.line_ending == "\n":
        return events
    # JSON never holds a bare line feed, so these are the line ends and nothing else.
    return [event.replace(b"\n", behaviour.line_ending.encode()) for event in events]


def _usage_member(answer: Answer, behaviour: Behaviour) -> str:
    if behaviour.silent_usage:
        return ""
    if behaviour.usage_null:
        return ',"usage":null'
    if behaviour.usage_placeholder == "zeros":
        return f',"usage":{ZERO_USAGE}'
    return f',"usage":{usage_text(answer, behaviour)}'


def _completion_body(answer: Answer, choices: tuple[Choice, ...], usage: str) -> bytes:
    spoken: list[dict[str, object]] = []
    for index, choice in enumerate(choices):
        reasoning = choice.reasoning or None
        content: dict[str, object] = {"text": choice.text, "reasoning": reasoning}
        if answer.ask.endpoint is Endpoint.CHAT_COMPLETIONS:
            message: dict[str, object] = {
                "role": "assistant",
                "content": None if choice.tool_name is not None else choice.text,
                "refusal": None,
                "reasoning": reasoning,
            }
            if choice.tool_name is not None:
                message["tool_calls"] = [_tool_call(choice, choice.text)]
            content = {"message": message}
        finish = {
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "native_finish_reason": choice.finish_reason,
            "index": index,
        }
        spoken.append({**finish, **content})
    body = json.dumps(
        {
            "id": answer.generation_id,
            "provider": answer.model.provider,
            "model": answer.model.id,
            "object": _JSON_OBJECTS[answer.ask.endpoint],
            "created": int(answer.at.timestamp()),
            "choices": spoken,
            "system_fingerprint": None,
        },
        separators=(",", ":"),
    )
    return f"{body[:-1]}{usage}}}".encode()


def _tool_call(choice: Choice, arguments: str) -> dict[str, object]:
    return {
        "index": 0,
        "id": choice.tool_call_id,
        "type": "function",
        "function": {"name": choice.tool_name, "arguments": arguments},
    }


def _text_events(answer: Answer) -> Iterator[bytes]:
    for index, choice in enumerate(answer.choices):
        finish: dict[str, object] = {
            "finish_reason": choice.finish_reason,
            "native_finish_reason": choice.finish_reason,
        }
        deltas = list(_deltas(answer, choice))
        for number, delta in enumerate(deltas, start=1):
            end = finish if number == len(deltas) else {"finish_reason": None}
            yield _event(answer, [{"index": index, **delta, **end, "logprobs": None}])


def _deltas(answer: Answer, choice: Choice) -> Iterator[dict[str, object]]:
    """The pieces of one choice; the last is empty and carries the finish reason."""
    if answer.ask.endpoint is Endpoint.COMPLETIONS:
        for piece in _pieces(choice.text):
            yield {"text": piece}
        yield {"text": ""}
        return
    for piece in _pieces(choice.reasoning):
        yield {"delta": {"role": "assistant", "content": "", "reasoning": piece}}
    is_call = choice.tool_name is not None
    if is_call:
        call = _tool_call(choice, "")
        yield {"delta": {"role": "assistant", "content": None, "tool_calls": [call]}}
    for piece in _pieces(choice.text):
        if is_call:
            part = {"index": 0, "type": "function", "function": {"arguments": piece}}
            yield {"delta": {"role": "assistant", "content": None, "tool_calls": [part]}}
        else:
            yield {"delta": {"role": "assistant", "content": piece}}
    yield {"delta": {"role": "assistant", "content": ""}}


def _pieces(text: str) -> Iterator[str]:
    size = max(PIECE_MIN_CHARS, len(text) // PIECES_MAX + 1)
    return (text[start : start + size] for start in range(0, len(text), size))


def _event(answer: Answer, choices: list[dict[str, object]], usage: str = "") -> bytes:
    return _data(_chunk(answer, choices), usage)


def _chunk(answer: Answer, choices: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": answer.generation_id,
        "provider": answer.model.provider,
        "model": answer.model.id,
        "object": _CHUNK_OBJECTS[answer.ask.endpoint],
        "created": int(answer.at.timestamp()),
        "choices": choices,
    }


def _data(chunk: dict[str, object], usage: str) -> bytes:
    text = json.dumps(chunk, separators=(",", ":"))
    return f"data: {text[:-1]}{usage}}}\n\n".encode()
