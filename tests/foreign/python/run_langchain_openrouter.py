"""`langchain-openrouter`: ChatOpenRouter at OpenRouter's own base path."""

from typing import Any

from langchain_core.tools import tool
from langchain_openrouter import ChatOpenRouter
from probe import KEY, MODEL, OPENROUTER_BASE, PIXEL, expect, feature, main
from pydantic import BaseModel


def model(**options: Any) -> ChatOpenRouter:
    given = {"model": MODEL, "base_url": OPENROUTER_BASE, "api_key": KEY, "max_retries": 0}
    made = ChatOpenRouter(**{**given, **options})
    # With 0 it leaves the SDK below to its own default, an hour of retries.
    made.client.sdk_configuration.retry_config = None
    return made


class Answer(BaseModel):
    """An answer."""

    verdict: str


@tool
def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


@feature("chat")
def chat() -> None:
    reply = model().invoke("Hello")
    expect("Simulated" in reply.content and reply.usage_metadata, reply)


@feature("chat stream")
def chat_stream() -> None:
    chunks = list(model().stream("Hello"))
    expect("".join(chunk.content for chunk in chunks).startswith("Simulated"), chunks)


@feature("chat tools")
def chat_tools() -> None:
    bound = model().bind_tools([get_weather])
    reply = bound.invoke("Hello")
    result = get_weather.invoke(reply.tool_calls[0])
    expect(bound.invoke([("user", "Hello"), reply, result]).content, reply)


@feature("chat JSON schema")
def chat_parse() -> None:
    expect(isinstance(model().with_structured_output(Answer).invoke("Hello"), Answer), "no")


@feature("chat with image")
def chat_image() -> None:
    content = [{"type": "image_url", "image_url": {"url": PIXEL}}]
    expect(model().invoke([{"role": "user", "content": content}]).content, "no")


def ask(key: str = KEY, name: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    model(model=name, api_key=key, max_tokens=max_tokens).invoke(text)


main(lambda model=MODEL, **changed: ask(name=model, **changed))
