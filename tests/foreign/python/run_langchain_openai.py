"""`langchain-openai`: ChatOpenAI over chat completions and over Responses, and embeddings."""

from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from probe import EMBEDDINGS, KEY, MODEL, PIXEL, V1, expect, feature, main
from pydantic import BaseModel


def model(**options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"model": MODEL, "base_url": V1, "api_key": KEY, "max_retries": 0, **options}
    )


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
    chunks = list(model(stream_usage=True).stream("Hello"))
    expect("".join(chunk.content for chunk in chunks).startswith("Simulated"), chunks)
    expect(any(chunk.usage_metadata for chunk in chunks), chunks)


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


@feature("embeddings")
def embeddings() -> None:
    made = OpenAIEmbeddings(
        model=EMBEDDINGS, base_url=V1, api_key=KEY, check_embedding_ctx_length=False
    )
    expect(made.embed_query("Hello"), "no")


@feature("responses")
def responses() -> None:
    expect(model(use_responses_api=True).invoke("Hello").text, "no")


@feature("responses stream")
def responses_stream() -> None:
    chunks = list(model(use_responses_api=True).stream("Hello"))
    expect("".join(chunk.text for chunk in chunks).startswith("Simulated"), chunks)


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    ChatOpenAI(model=model, base_url=V1, api_key=key, max_retries=0, max_tokens=max_tokens).invoke(
        text
    )


main(ask)
