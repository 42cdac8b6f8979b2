"""`llama-index-llms-openrouter`: OpenRouter as a model of LlamaIndex."""

from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openrouter import OpenRouter
from probe import KEY, MODEL, OPENROUTER_BASE, expect, feature, main
from pydantic import BaseModel


def model(**options: Any) -> OpenRouter:
    given = {"model": MODEL, "api_base": OPENROUTER_BASE, "api_key": KEY, "max_retries": 0}
    return OpenRouter(**{**given, **options})


class Answer(BaseModel):
    """An answer."""

    verdict: str


@feature("chat")
def chat() -> None:
    expect("Simulated" in str(model().complete("Hello")), "no")


@feature("chat stream")
def chat_stream() -> None:
    chunks = list(model().stream_chat([ChatMessage(role="user", content="Hello")]))
    expect(str(chunks[-1].message.content).startswith("Simulated"), chunks[-1])


@feature("chat tools")
def chat_tools() -> None:
    def get_weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    made = FunctionTool.from_defaults(get_weather)
    reply = model(is_function_calling_model=True).predict_and_call([made], "Hello")
    expect("sunny" in str(reply), reply)


@feature("chat JSON schema")
def chat_parse() -> None:
    structured = model(is_function_calling_model=True).as_structured_llm(Answer)
    expect(isinstance(structured.complete("Hello").raw, Answer), "no")


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    OpenRouter(
        model=model, api_base=OPENROUTER_BASE, api_key=key, max_retries=0, max_tokens=max_tokens
    ).chat([ChatMessage(role="user", content=text)])


main(ask)
