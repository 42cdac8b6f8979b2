"""`openai-agents`: agents over Responses, its default, and over chat completions."""

import asyncio

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from probe import KEY, MODEL, V1, expect, feature, main

set_tracing_disabled(disabled=True)
asked: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather."""
    asked.append(city)
    return f"sunny in {city}"


def client(key: str = KEY) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=V1, api_key=key, max_retries=0)


def chat_model() -> OpenAIChatCompletionsModel:
    return OpenAIChatCompletionsModel(MODEL, client())


def responses_model() -> OpenAIResponsesModel:
    return OpenAIResponsesModel(MODEL, client())


def run(model: object, *, has_tool: bool = False) -> None:
    asked.clear()
    agent = Agent(name="a", model=model, tools=[get_weather] if has_tool else [])
    outcome = Runner.run_sync(agent, "Hello")
    expect("Simulated" in outcome.final_output and bool(asked) is has_tool, outcome)


def run_streamed(model: object) -> None:
    async def stream() -> str:
        outcome = Runner.run_streamed(Agent(name="a", model=model), "Hello")
        async for _ in outcome.stream_events():
            pass
        return str(outcome.final_output)

    expect(asyncio.run(stream()).startswith("Simulated"), "no")


@feature("chat")
def chat() -> None:
    run(chat_model())


@feature("chat stream")
def chat_stream() -> None:
    run_streamed(chat_model())


@feature("chat tools")
def chat_tools() -> None:
    run(chat_model(), has_tool=True)


@feature("responses")
def responses() -> None:
    run(responses_model())


@feature("responses stream")
def responses_stream() -> None:
    run_streamed(responses_model())


@feature("responses tools")
def responses_tools() -> None:
    run(responses_model(), has_tool=True)


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    settings = ModelSettings(max_tokens=max_tokens)
    agent = Agent(
        name="a", model=OpenAIChatCompletionsModel(model, client(key)), model_settings=settings
    )
    Runner.run_sync(agent, text)


main(ask)
