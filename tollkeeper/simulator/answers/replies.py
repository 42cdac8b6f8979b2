"""The bytes of an answer: one JSON object, or a list of server-sent events."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import replace

from tollkeeper.simulator.answers.answering import Answer, Choice
from tollkeeper.simulator.answers.messages import (
    message_body,
    message_events,
    usage_of_message,
)
from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.pictures import PICTURE, picture_body, picture_events
from tollkeeper.simulator.answers.pieces import DONE, pieces_of_text
from tollkeeper.simulator.answers.responses import (
    response_body,
    response_events,
    response_id,
    usage_of_response,
)
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.dialects.dialect import ProviderDialect, StreamUsage

DIMENSIONS_DEFAULT = 1536
_JSON_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion",
    Endpoint.COMPLETIONS: "text_completion",
}
_CHUNK_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}


def json_body(
    dialect: ProviderDialect, answer: Answer, behaviour: Behaviour, vocabulary: Vocabulary
) -> bytes:
    """The reply to a request that did not ask for a stream."""
    usage = _usage_member(dialect, answer, behaviour)
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
        named = f',"id":"{answer.generation_id}"' if dialect.has_openrouter_members else ""
        return (
            f'{{"object":"list","data":[{vectors}],"model":{json.dumps(answer.model.id)}'
            f"{named}{usage}}}"
        ).encode()
    body = _spoken_body(dialect, answer, behaviour, answer.choices, usage)
    if behaviour.reply_bytes is not None and len(body) < behaviour.reply_bytes:
        padding = " " + "x" * (behaviour.reply_bytes - len(body) - 1)
        first, *others = answer.choices
        longer = Choice(
            text=first.text + padding,
            finish_reason=first.finish_reason,
            reasoning=first.reasoning,
        )
        return _spoken_body(dialect, answer, behaviour, (longer, *others), usage)
    return body


def _spoken_body(
    dialect: ProviderDialect,
    answer: Answer,
    behaviour: Behaviour,
    choices: tuple[Choice, ...],
    usage: str,
) -> bytes:
    if answer.ask.endpoint is Endpoint.RESPONSES:
        own_id = response_id(dialect, answer, behaviour)
        return response_body(answer, choices[0], own_id, usage)
    if answer.ask.endpoint is Endpoint.MESSAGES:
        return message_body(dialect, answer, choices[0], usage)
    if answer.ask.endpoint is Endpoint.IMAGES:
        return picture_body(answer, usage)
    return _completion_body(dialect, answer, choices, usage)


def sse_events(dialect: ProviderDialect, answer: Answer, behaviour: Behaviour) -> list[bytes]:
    """The events of a stream, each whole and with its blank line, in order."""
    if answer.ask.endpoint is Endpoint.RESPONSES:
        usages = [_usage_member(dialect, answer, behaviour)]
        if later := _later_usage(dialect, behaviour):
            usages.append(usage_of_response(f',"usage":{later}'))
        own_id = response_id(dialect, answer, behaviour)
        breaks_off = behaviour.error_midstream
        events = response_events(dialect, answer, own_id, usages, breaks_off=breaks_off)
    elif answer.ask.endpoint is Endpoint.IMAGES:
        usage = _usage_member(dialect, answer, behaviour)
        events = picture_events(answer, usage, breaks_off=behaviour.error_midstream)
    elif answer.ask.endpoint is Endpoint.MESSAGES:
        usages = [_usage_member(dialect, answer, behaviour)]
        if later := _later_usage(dialect, behaviour):
            usages.append(f',"usage":{usage_of_message(later)}')
        events = message_events(
            dialect,
            answer,
            usages,
            breaks_off=behaviour.error_midstream,
            ends_first=behaviour.usage_after_done,
        )
    else:
        events = _chunk_events(dialect, answer, behaviour)
    if behaviour.line_ending == "\n":
        return events
    # JSON never holds a bare line feed, so these are the line ends and nothing else.
    return [event.replace(b"\n", behaviour.line_ending.encode()) for event in events]


def _later_usage(dialect: ProviderDialect, behaviour: Behaviour) -> str | None:
    """The usage that a stream names after its own, where it is told to."""
    later = {"zeros_after": dialect.zero_usage, "lesser_after": dialect.lesser_usage}
    return later.get(behaviour.usage_placeholder or "")


def _chunk_events(dialect: ProviderDialect, answer: Answer, behaviour: Behaviour) -> list[bytes]:
    usage = _usage_member(dialect, answer, behaviour)
    is_asked = dialect.stream_usage is StreamUsage.ALWAYS_LAST or answer.ask.wants_usage
    is_in_each = is_asked and dialect.stream_usage is StreamUsage.EACH_IF_ASKED
    texts = list(_text_choices(dialect, answer))
    events = list(dialect.first_events)
    for number, choices in enumerate(texts, start=1):
        member = dialect.usage_before_last if is_asked else ""
        if is_in_each:
            said = _said_so_far(answer, number, len(texts))
            member = _usage_member(dialect, said, behaviour)
        events.append(_event(dialect, answer, choices, member))
    if behaviour.error_midstream:
        # The status has been sent: a failure is reported in this way.
        chunk = _chunk(
            dialect, answer, [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]
        )
        chunk["error"] = {"code": 502, "message": "Provider disconnected unexpectedly"}
        events = [*events[: len(events) // 2 + 1], _data(chunk, ""), DONE]
    elif is_in_each or not is_asked:
        events.append(DONE)
    elif behaviour.usage_after_done:
        events += [DONE, _event(dialect, answer, [], usage)]
    else:
        later = _later_usage(dialect, behaviour)
        extra = [] if later is None else [_event(dialect, answer, [], f',"usage":{later}')]
        events += [_event(dialect, answer, [], usage), *extra, DONE] if usage else [DONE]
    return events


def _usage_member(dialect: ProviderDialect, answer: Answer, behaviour: Behaviour) -> str:
    if behaviour.silent_usage:
        return ""
    if behaviour.usage_null:
        return ',"usage":null'
    usage = dialect.zero_usage
    if behaviour.usage_placeholder != "zeros":
        costs = (answer.cost_picos, answer.completion_cost_picos)
        usage = dialect.usage_text(answer.usage, costs, behaviour)
    if answer.ask.endpoint is Endpoint.RESPONSES:
        usage = usage_of_response(usage)
    elif answer.ask.endpoint is Endpoint.MESSAGES:
        usage = usage_of_message(usage)
    return f',"usage":{usage}'


def _completion_body(
    dialect: ProviderDialect, answer: Answer, choices: tuple[Choice, ...], usage: str
) -> bytes:
    is_openrouter = dialect.has_openrouter_members
    spoken: list[dict[str, object]] = []
    for index, choice in enumerate(choices):
        reasoning = {"reasoning": choice.reasoning or None} if is_openrouter else {}
        content: dict[str, object] = {"text": choice.text, **reasoning}
        if answer.ask.endpoint is Endpoint.CHAT_COMPLETIONS:
            message: dict[str, object] = {
                "role": "assistant",
                "content": None if choice.tool_name is not None else choice.text,
                "refusal": None,
                **reasoning,
            }
            if choice.tool_name is not None:
                message["tool_calls"] = [_tool_call(choice, choice.text)]
            if choice.picture_tokens:
                message["images"] = [PICTURE]
            content = {"message": message}
        native = {"native_finish_reason": choice.finish_reason} if is_openrouter else {}
        finish = {
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            **native,
            "index": index,
        }
        spoken.append({**finish, **content})
    served_by = {"provider": answer.model.provider} if is_openrouter else {}
    body = json.dumps(
        {
            "id": answer.generation_id,
            **served_by,
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
    if choice.is_free_text:
        called = {"name": choice.tool_name, "input": arguments}
        return {"index": 0, "id": choice.tool_call_id, "type": "custom", "custom": called}
    return {
        "index": 0,
        "id": choice.tool_call_id,
        "type": "function",
        "function": {"name": choice.tool_name, "arguments": arguments},
    }


def _said_so_far(answer: Answer, number: int, count: int) -> Answer:
    """The answer with the usage of its first ``number`` chunks out of ``count``."""
    usage = replace(
        answer.usage,
        completion_tokens=answer.usage.completion_tokens * number // count,
        reasoning_tokens=answer.usage.reasoning_tokens * number // count,
    )
    return replace(answer, usage=usage)


def _text_choices(dialect: ProviderDialect, answer: Answer) -> Iterator[list[dict[str, object]]]:
    """The member ``choices`` of each chunk that carries text or an end."""
    is_openrouter = dialect.has_openrouter_members
    for index, choice in enumerate(answer.choices):
        finish: dict[str, object] = {"finish_reason": choice.finish_reason}
        if is_openrouter:
            finish["native_finish_reason"] = choice.finish_reason
        deltas = list(_deltas(answer, choice, has_reasoning=is_openrouter))
        for number, delta in enumerate(deltas, start=1):
            end = finish if number == len(deltas) else {"finish_reason": None}
            yield [{"index": index, **delta, **end, "logprobs": None}]


def _deltas(answer: Answer, choice: Choice, *, has_reasoning: bool) -> Iterator[dict[str, object]]:
    """The pieces of one choice; the last is empty and carries the finish reason."""
    if answer.ask.endpoint is Endpoint.COMPLETIONS:
        for piece in pieces_of_text(choice.text):
            yield {"text": piece}
        yield {"text": ""}
        return
    for piece in pieces_of_text(choice.reasoning if has_reasoning else ""):
        yield {"delta": {"role": "assistant", "content": "", "reasoning": piece}}
    is_call = choice.tool_name is not None
    if is_call:
        call = _tool_call(choice, "")
        yield {"delta": {"role": "assistant", "content": None, "tool_calls": [call]}}
    for piece in pieces_of_text(choice.text):
        if is_call:
            part = {"index": 0, "type": "function", "function": {"arguments": piece}}
            if choice.is_free_text:
                part = {"index": 0, "type": "custom", "custom": {"input": piece}}
            yield {"delta": {"role": "assistant", "content": None, "tool_calls": [part]}}
        else:
            yield {"delta": {"role": "assistant", "content": piece}}
    if choice.picture_tokens:
        yield {"delta": {"role": "assistant", "content": "", "images": [PICTURE]}}
    yield {"delta": {"role": "assistant", "content": ""}}


def _event(
    dialect: ProviderDialect, answer: Answer, choices: list[dict[str, object]], usage: str = ""
) -> bytes:
    return _data(_chunk(dialect, answer, choices), usage)


def _chunk(
    dialect: ProviderDialect, answer: Answer, choices: list[dict[str, object]]
) -> dict[str, object]:
    served_by = {"provider": answer.model.provider} if dialect.has_openrouter_members else {}
    return {
        "id": answer.generation_id,
        **served_by,
        "model": answer.model.id,
        "object": _CHUNK_OBJECTS[answer.ask.endpoint],
        "created": int(answer.at.timestamp()),
        "choices": choices,
    }


def _data(chunk: dict[str, object], usage: str) -> bytes:
    text = json.dumps(chunk, separators=(",", ":"))
    return f"data: {text[:-1]}{usage}}}\n\n".encode()
