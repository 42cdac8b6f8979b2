"""`litellm` as a client: its providers openai, openrouter and anthropic."""

from typing import Any

import litellm
from probe import (
    CLAUDE,
    EMBEDDINGS,
    GATEWAY,
    KEY,
    MODEL,
    OPENROUTER_BASE,
    PIXEL,
    V1,
    expect,
    feature,
    main,
)
from pydantic import BaseModel

HELLO: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}


class Answer(BaseModel):
    verdict: str


def complete(provider: str = "openai", **options: Any) -> Any:
    base = OPENROUTER_BASE if provider == "openrouter" else V1
    given = {"model": f"{provider}/{MODEL}", "messages": HELLO, "num_retries": 0}
    return litellm.completion(**{**given, "api_base": base, "api_key": KEY, **options})


@feature("chat")
def chat() -> None:
    for provider in ("openai", "openrouter"):
        reply = complete(provider)
        expect("Simulated" in reply.choices[0].message.content and reply.usage, reply)


@feature("chat stream")
def chat_stream() -> None:
    for provider in ("openai", "openrouter"):
        chunks = list(complete(provider, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        expect(text.startswith("Simulated"), text)


@feature("chat tools")
def chat_tools() -> None:
    call = complete(tools=[TOOL]).choices[0].message.tool_calls[0]
    expect(call.function.name == "get_weather", call)


@feature("chat JSON schema")
def chat_parse() -> None:
    reply = complete(response_format=Answer)
    expect(Answer.model_validate_json(reply.choices[0].message.content), reply)


@feature("chat with image")
def chat_image() -> None:
    content = [{"type": "image_url", "image_url": {"url": PIXEL}}]
    expect(complete(messages=[{"role": "user", "content": content}]).choices, "no")


@feature("embeddings")
def embeddings() -> None:
    reply = litellm.embedding(
        model=f"openai/{EMBEDDINGS}",
        input=["a"],
        api_base=V1,
        api_key=KEY,
        encoding_format="float",
    )
    expect(reply.data, reply)


@feature("responses")
def responses() -> None:
    reply = litellm.responses(
        model=f"openai/{MODEL}", input="Hello", api_base=V1, api_key=KEY, num_retries=0
    )
    expect(reply.output, reply)


@feature("messages")
def messages() -> None:
    reply = litellm.completion(
        model=f"anthropic/{CLAUDE}", messages=HELLO, api_base=GATEWAY, api_key=KEY, num_retries=0
    )
    expect("Simulated" in reply.choices[0].message.content, reply)


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    complete(
        api_key=key,
        model=f"openai/{model}",
        messages=[{"role": "user", "content": text}],
        max_tokens=max_tokens,
    )


main(ask)
