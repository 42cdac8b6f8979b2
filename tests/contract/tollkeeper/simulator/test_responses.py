"""The simulator's /responses: the types of OpenAI's SDK, whole and as events, and the bill."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.contract.tollkeeper.simulator.listening import listening
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.dialects import DIALECTS
from tollkeeper.simulator.settings import SimulatorSettings

KEYS = {"openrouter": "sk-or-test", "openai": "sk-own-0123456789"}
MODELS = {"openrouter": "openai/gpt-5-nano", "openai": "gpt-5-nano"}
HELLO = "Hello there, and tell me all about tolls. " * 20
LOOK = {
    "type": "function",
    "name": "look",
    "strict": True,
    "parameters": {"type": "object", "properties": {"where": {"type": "string"}}},
}
PATCH = {"type": "custom", "name": "patch", "description": "Apply a patch"}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@dataclass
class Upstream:
    """A running dialect that serves /responses."""

    name: str
    session: aiohttp.ClientSession
    url: str
    bill: Bill

    @property
    def base_url(self) -> str:
        return self.url + DIALECTS[self.name].base_path

    async def post(self, **members: Any) -> tuple[int, str]:
        body = {"model": MODELS[self.name], "input": HELLO, **members}
        headers = {"Authorization": f"Bearer {KEYS[self.name]}"}
        url = f"{self.base_url}/responses"
        async with self.session.post(url, json=body, headers=headers) as got:
            return got.status, await got.text()

    async def respond(self, **members: Any) -> dict[str, Any]:
        """The whole reply, validated by OpenAI's types."""
        status, text = await self.post(**members)
        assert status == 200, text
        Response.model_validate_json(text, strict=False)
        found: dict[str, Any] = json.loads(text, parse_float=Decimal)
        return found

    async def events(self, **members: Any) -> list[dict[str, Any]]:
        """The events of a stream, validated by OpenAI's types."""
        status, text = await self.post(stream=True, **members)
        assert status == 200, text
        is_openrouter = self.name == "openrouter"
        assert text.endswith("data: [DONE]\n\n") == is_openrouter
        blocks = [block.split("\n") for block in text.removesuffix("\n\n").split("\n\n")]
        found = []
        for *names, line in blocks:
            if line.startswith("data: {"):
                event = json.loads(line[6:], parse_float=Decimal)
                EVENT.validate_json(line[6:])
                assert names == ([] if is_openrouter else [f"event: {event['type']}"])
                found.append(event)
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        return found

    async def misbehave(self, **behaviour: Any) -> None:
        url = f"{self.url}/control/behaviours"
        async with self.session.post(url, json={"times": 1, **behaviour}) as got:
            assert got.status == 201, await got.text()


@asynccontextmanager
async def running(name: str, path: Path) -> AsyncIterator[Upstream]:
    bill = Bill(path / "bill.jsonl")
    app = build_app(bill, SimulatorSettings(), dialect=DIALECTS[name], seed=7)
    async with listening(app) as url, aiohttp.ClientSession() as session:
        yield Upstream(name, session, url, bill)
    await bill.close()


@pytest.fixture(params=sorted(KEYS))
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    async with running(request.param, tmp_path) as one:
        yield one


def check_usage(upstream: Upstream, usage: dict[str, Any]) -> None:
    """The usage is that of the last row of the bill, and so is its cost where it has one."""
    row = upstream.bill.rows()[-1]
    counted = {
        "input_tokens": row.prompt_tokens,
        "output_tokens": row.completion_tokens,
        "total_tokens": row.prompt_tokens + row.completion_tokens,
    }
    assert counted.items() <= usage.items()
    assert usage["input_tokens_details"]["cached_tokens"] == row.cached_tokens
    assert usage["output_tokens_details"]["reasoning_tokens"] == row.reasoning_tokens > 0
    cost = Decimal(row.cost) if upstream.name == "openrouter" else None
    assert usage.get("cost") == cost


async def test_a_reply_has_a_thought_and_a_text(upstream: Upstream) -> None:
    reply = await upstream.respond(include=["reasoning.encrypted_content"])
    thought, message = reply["output"]
    assert thought["summary"][0]["text"].startswith("Simulated")
    assert thought["encrypted_content"]
    assert message["content"][0]["text"].startswith("Simulated")
    assert (reply["status"], reply["store"]) == ("completed", False)
    row = upstream.bill.rows()[-1]
    assert reply["id"].startswith("resp_")
    assert (row.generation_id == reply["id"]) == (upstream.name == "openai")
    check_usage(upstream, reply["usage"])


async def test_a_stream_adds_up_to_its_last_event(upstream: Upstream) -> None:
    first, *events, last = await upstream.events()
    assert (first["type"], last["type"]) == ("response.created", "response.completed")
    assert first["response"]["usage"] is None
    done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
    assert last["response"]["output"] == done
    text = "".join(one["delta"] for one in events if one["type"] == "response.output_text.delta")
    assert done[-1]["content"][0]["text"] == text
    check_usage(upstream, last["response"]["usage"])


async def test_tools_are_called_with_arguments_or_a_text(upstream: Upstream) -> None:
    reply = await upstream.respond(tools=[LOOK])
    call = reply["output"][-1]
    assert (call["type"], call["name"]) == ("function_call", "look")
    assert "where" in json.loads(call["arguments"])
    *_, done, last = await upstream.events(
        tools=[LOOK, PATCH], tool_choice={"type": "custom", "name": "patch"}
    )
    assert done["item"]["type"] == "custom_tool_call"
    assert done["item"] == last["response"]["output"][-1]
    assert done["item"]["input"]
    # Once the tool has replied, the model speaks.
    outputs = {"type": "function_call_output", "call_id": call["call_id"], "output": "fog"}
    spoken = await upstream.respond(
        tools=[LOOK], input=[{"role": "user", "content": HELLO}, *reply["output"], outputs]
    )
    assert spoken["output"][-1]["type"] == "message"


async def test_a_limit_leaves_a_reply_incomplete(upstream: Upstream) -> None:
    reply = await upstream.respond(max_output_tokens=3, reasoning={"effort": "none"})
    assert (reply["status"], reply["usage"]["output_tokens"]) == ("incomplete", 3)
    assert reply["incomplete_details"] == {"reason": "max_output_tokens"}
    *_, last = await upstream.events(max_output_tokens=3)
    assert last["type"] == "response.incomplete"
    assert last["response"]["usage"]["output_tokens"] == 3


async def test_a_format_is_kept_to(upstream: Upstream) -> None:
    schema = {"type": "object", "properties": {"verdict": {"type": "string"}}}
    wanted = {"type": "json_schema", "name": "answer", "schema": schema}
    reply = await upstream.respond(text={"format": wanted})
    assert "verdict" in json.loads(reply["output"][-1]["content"][0]["text"])


async def test_an_error_halfway_is_a_failed_response(upstream: Upstream) -> None:
    await upstream.misbehave(error_midstream=True)
    *_, last = await upstream.events()
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["usage"] is None
    assert upstream.bill.row_count == 1


async def test_usage_can_be_missing_or_followed_by_zeros(upstream: Upstream) -> None:
    await upstream.misbehave(silent_usage=True)
    assert "usage" not in json.loads((await upstream.post())[1])
    await upstream.misbehave(usage_placeholder="zeros_after")
    *_, last, later = await upstream.events()
    assert last["response"]["usage"]["output_tokens"] > 0
    assert later["response"]["usage"]["output_tokens"] == 0


@pytest.mark.parametrize(
    "members", [{"store": True}, {"previous_response_id": "resp_1"}, {"input": []}]
)
async def test_what_is_not_served_is_refused(upstream: Upstream, members: dict[str, Any]) -> None:
    status, _ = await upstream.post(**members)
    assert (status, upstream.bill.row_count) == (400, 0)


async def test_the_sdk_streams_and_parses(upstream: Upstream) -> None:
    key, model = KEYS[upstream.name], MODELS[upstream.name]
    async with (
        AsyncOpenAI(api_key=key, base_url=upstream.base_url, max_retries=0) as sdk,
        sdk.responses.stream(model=model, input=HELLO) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text
    assert final.usage is not None and final.usage.output_tokens > 0
