"""The package `anthropic`: Messages, whole, streamed, with tools, pictures and thinking."""

from typing import Any

from anthropic import Anthropic
from probe import CLAUDE, GATEWAY, KEY, PIXEL_BASE64, expect, feature, main

client = Anthropic(base_url=GATEWAY, api_key=KEY, max_retries=0)
HELLO: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": "Tells the weather", "input_schema": SCHEMA}


@feature("messages")
def messages() -> None:
    reply = client.messages.create(model=CLAUDE, max_tokens=99, messages=HELLO)
    text = [part.text for part in reply.content if part.type == "text"]
    expect(text and "Simulated" in text[0], reply)
    expect(reply.usage.input_tokens and reply.usage.output_tokens, reply)


@feature("messages stream")
def messages_stream() -> None:
    with client.messages.stream(model=CLAUDE, max_tokens=99, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        reply = stream.get_final_message()
    expect(text.startswith("Simulated") and reply.usage.output_tokens, reply)


@feature("messages tools")
def messages_tools() -> None:
    given = [*HELLO]
    reply = client.messages.create(model=CLAUDE, max_tokens=99, messages=given, tools=[TOOL])
    (call,) = [part for part in reply.content if part.type == "tool_use"]
    expect("city" in call.input and reply.stop_reason == "tool_use", reply)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    given += [{"role": "assistant", "content": reply.content}]
    given += [{"role": "user", "content": [result]}]
    reply = client.messages.create(model=CLAUDE, max_tokens=99, messages=given, tools=[TOOL])
    expect(reply.stop_reason == "end_turn", reply)


@feature("messages with image")
def messages_image() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL_BASE64}
    content = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
    given: Any = [{"role": "user", "content": content}]
    reply = client.messages.create(model=CLAUDE, max_tokens=99, messages=given)
    expect(reply.content, reply)


@feature("messages thinking")
def messages_thinking() -> None:
    reply = client.messages.create(
        model=CLAUDE,
        max_tokens=2_000,
        messages=HELLO,
        thinking={"type": "enabled", "budget_tokens": 1_024},
    )
    expect(reply.content, reply)


@feature("count tokens")
def count_tokens() -> None:
    expect(client.messages.count_tokens(model=CLAUDE, messages=HELLO).input_tokens, "none")


def ask(key: str = KEY, model: str = CLAUDE, text: str = "Hello", max_tokens: int = 9) -> None:
    given: Any = [{"role": "user", "content": text}]
    client.with_options(api_key=key).messages.create(
        model=model, max_tokens=max_tokens, messages=given
    )


main(ask)
