"""`pydantic-ai`: agents over OpenRouter's, OpenAI's and Anthropic's models."""

import asyncio

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from probe import CLAUDE, GATEWAY, KEY, MODEL, V1, expect, feature, main
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Answer(BaseModel):
    verdict: str


def provider(key: str = KEY) -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=V1, api_key=key, max_retries=0))


def chat_model(key: str = KEY, model: str = MODEL) -> OpenAIChatModel:
    return OpenAIChatModel(model, provider=provider(key))


def claude() -> AnthropicModel:
    client = AsyncAnthropic(base_url=GATEWAY, api_key=KEY, max_retries=0)
    return AnthropicModel(CLAUDE, provider=AnthropicProvider(anthropic_client=client))


def run_with_tool(model: object) -> None:
    asked: list[str] = []
    agent = Agent(model)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Tell the weather."""
        asked.append(city)
        return f"sunny in {city}"

    outcome = agent.run_sync("Hello")
    expect(asked and "Simulated" in outcome.output, outcome)


@feature("chat")
def chat() -> None:
    expect("Simulated" in Agent(chat_model()).run_sync("Hello").output, "no")


@feature("chat stream")
def chat_stream() -> None:
    async def stream() -> str:
        async with Agent(chat_model()).run_stream("Hello") as streamed:
            return str(await streamed.get_output())

    expect(asyncio.run(stream()).startswith("Simulated"), "no")


@feature("chat tools")
def chat_tools() -> None:
    run_with_tool(chat_model())


@feature("chat JSON schema")
def chat_parse() -> None:
    agent = Agent(chat_model(), output_type=Answer)
    expect(isinstance(agent.run_sync("Hello").output, Answer), "no")


@feature("responses")
def responses() -> None:
    model = OpenAIResponsesModel(MODEL, provider=provider())
    expect("Simulated" in Agent(model).run_sync("Hello").output, "no")


@feature("responses tools")
def responses_tools() -> None:
    run_with_tool(OpenAIResponsesModel(MODEL, provider=provider()))


@feature("messages")
def messages() -> None:
    expect("Simulated" in Agent(claude()).run_sync("Hello").output, "no")


@feature("messages tools")
def messages_tools() -> None:
    run_with_tool(claude())


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    agent = Agent(chat_model(key, model), model_settings={"max_tokens": max_tokens})
    agent.run_sync(text)


main(ask)
