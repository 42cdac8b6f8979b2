"""`instructor`: models of pydantic from chat completions, by tools and by a schema."""

from typing import Any

import instructor
from openai import OpenAI
from probe import KEY, MODEL, V1, expect, feature, main
from pydantic import BaseModel

client = OpenAI(base_url=V1, api_key=KEY, max_retries=0)
HELLO: Any = [{"role": "user", "content": "Hello"}]


class Answer(BaseModel):
    verdict: str
    score: int


def made(mode: instructor.Mode) -> Answer:
    wrapped = instructor.from_openai(client, mode=mode)
    return wrapped.create(model=MODEL, messages=HELLO, response_model=Answer, max_retries=0)


@feature("chat tools")
def chat_tools() -> None:
    expect(isinstance(made(instructor.Mode.TOOLS), Answer), "no")


@feature("chat JSON schema")
def chat_parse() -> None:
    expect(isinstance(made(instructor.Mode.JSON_SCHEMA), Answer), "no")


@feature("chat stream")
def chat_stream() -> None:
    wrapped = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
    parts = list(wrapped.create_partial(model=MODEL, messages=HELLO, response_model=Answer))
    expect(parts[-1].score is not None, parts)


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    wrapped = instructor.from_openai(client.with_options(api_key=key))
    messages: Any = [{"role": "user", "content": text}]
    wrapped.create(
        model=model,
        messages=messages,
        response_model=Answer,
        max_tokens=max_tokens,
        max_retries=0,
    )


main(ask)
