"""The simulator's /messages: the types of Anthropic's SDK, whole and as events, and the bill."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.contract.tollkeeper.simulator.listening import listening
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.dialects import DIALECTS
from tollkeeper.simulator.settings import SimulatorSettings

KEYS = {"openrouter": "sk-or-test", "anthropic": "sk-ant-test"}
MODELS = {"openrouter": "anthropic/claude-sonnet-4.5", "anthropic": "claude-sonnet-4-5"}
HELLO = "Hello there, and tell me all about tolls. " * 40
LOOK = {
    "name": "look",
    "description": "Look somewhere",
    "input_schema": {"type": "object", "properties": {"where": {"type": "string"}}},
}
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@dataclass
class Upstream:
    """A running dialect that serves /messages."""

    name: str
    session: aiohttp.ClientSession
    url: str
    bill: Bill

    @property
    def headers(self) -> dict[str, str]:
        key = KEYS[self.name]
        if self.name == "openrouter":
            return {"Authorization": f"Bearer {key}"}
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}

    async def post(self, **members: Any) -> tuple[int, str]:
        body = {
            "model": MODELS[self.name],
            "max_tokens": 500,
            "messages": [{"role": "user", "content": HELLO}],
            **members,
        }
        url = f"{self.url}{DIALECTS[self.name].base_path}/messages"
        async with self.session.post(url, json=body, headers=self.headers) as got:
            return got.status, await got.text()

    async def message(self, **members: Any) -> dict[str, Any]:
        """The whole reply, validated by Anthropic's types."""
        status, text = await self.post(**members)
        assert status == 200, text
        Message.model_validate_json(text, strict=False)
        found: dict[str, Any] = json.loads(text, parse_float=Decimal)
        return found

    async def events(self, **members: Any) -> list[dict[str, Any]]:
        """The events of a stream, each named as its data says and validated, pings left out."""
        status, text = await self.post(stream=True, **members)
        assert status == 200, text
        found = []
        for block in text.split("\n\n"):
            named, _, data = block.partition("\ndata: ")
            if named.startswith("event: "):
                event = json.loads(data)
                assert event["type"] == named.removeprefix("event: ")
                if event["type"] not in ("ping", "error"):
                    EVENT.validate_python(event)
                found.append(event)
        return found

    async def tell(self, **behaviour: Any) -> None:
        async with self.session.post(f"{self.url}/control/behaviours", json=behaviour) as told:
            assert told.status < 300, await told.text()


@asynccontextmanager
async def serving(tmp_path: Path, name: str) -> AsyncIterator[Upstream]:
    bill = Bill(tmp_path / f"{name}.jsonl")
    app = build_app(bill, SimulatorSettings(), dialect=DIALECTS[name])
    async with listening(app) as url, aiohttp.ClientSession() as session:
        yield Upstream(name, session, url, bill)
    await bill.close()


@pytest.fixture
async def openrouter(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with serving(tmp_path, "openrouter") as upstream:
        yield upstream


@pytest.fixture
async def native(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with serving(tmp_path, "anthropic") as upstream:
        yield upstream


async def test_a_reply_is_what_the_bill_says(openrouter: Upstream) -> None:
    cached = {"type": "text", "text": HELLO, "cache_control": {"type": "ephemeral"}}
    whole = await openrouter.message(
        system=[cached], thinking={"type": "enabled", "budget_tokens": 100}
    )
    row = openrouter.bill.rows()[-1]
    usage = whole["usage"]
    assert whole["id"] == row.generation_id
    assert str(usage["cost"]) == row.cost
    beside = usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
    assert usage["cache_creation_input_tokens"] > 0
    assert usage["input_tokens"] + beside == row.prompt_tokens
    assert usage["output_tokens"] == row.completion_tokens
    assert usage["output_tokens_details"]["thinking_tokens"] == row.reasoning_tokens


async def test_a_stream_names_tokens_and_no_cost(openrouter: Upstream) -> None:
    events = await openrouter.events()
    row = openrouter.bill.rows()[-1]
    assert [events[0]["type"], events[1]["type"]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[0]["message"]["id"] == row.generation_id
    start, end = events[0]["message"]["usage"], events[-2]["usage"]
    assert (start["output_tokens"], end["output_tokens"]) == (1, row.completion_tokens)
    assert "cost" not in start | end
    spoken = "".join(
        event["delta"]["text"] for event in events if event["type"] == "content_block_delta"
    )
    assert spoken.startswith("Simulated")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_tool_is_called_and_its_result_ends_the_loop(
    openrouter: Upstream, is_stream: bool
) -> None:
    asked: list[Any] = [{"role": "user", "content": 'look {"where": "here"}'}]
    if is_stream:
        events = await openrouter.events(messages=asked, tools=[LOOK])
        begun = next(e["content_block"] for e in events if e["type"] == "content_block_start")
        pieces = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
        call = {**begun, "input": json.loads("".join(pieces))}
        assert events[-2]["delta"]["stop_reason"] == "tool_use"
    else:
        whole = await openrouter.message(messages=asked, tools=[LOOK])
        (call,) = whole["content"]
        assert whole["stop_reason"] == "tool_use"
    assert (call["name"], call["input"]) == ("look", {"where": "here"})
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "seen"}
    asked += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    ended = await openrouter.message(messages=asked, tools=[LOOK])
    assert (ended["content"][0]["type"], ended["stop_reason"]) == ("text", "end_turn")


async def test_thoughts_limits_and_formats_are_those_of_the_request(openrouter: Upstream) -> None:
    thought = await openrouter.message(thinking={"type": "adaptive"})
    assert [block["type"] for block in thought["content"]] == ["thinking", "text"]
    short = await openrouter.message(max_tokens=3)
    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 3)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    shaped = await openrouter.message(
        output_config={"format": {"type": "json_schema", "schema": schema}}
    )
    assert isinstance(json.loads(shaped["content"][0]["text"])["n"], int)


@pytest.mark.parametrize(
    ("behaviour", "members"),
    [
        ({"silent_usage": True}, [{}]),
        ({"usage_null": True}, [{"usage": None}]),
        ({"usage_placeholder": "zeros"}, [{"usage": {"output_tokens": 0}}]),
        ({"usage_placeholder": "lesser_after"}, [None, {"usage": {"output_tokens": 1}}]),
    ],
)
async def test_usage_misbehaves_as_it_is_told(
    openrouter: Upstream, behaviour: dict[str, Any], members: list[dict[str, Any] | None]
) -> None:
    await openrouter.tell(**behaviour)
    status, text = await openrouter.post(stream=True)
    assert status == 200
    ends = [json.loads(line[6:]) for line in text.splitlines() if '"message_delta"' in line[:40]]
    assert len(ends) == len(members)
    for end, member in zip(ends, members, strict=True):
        if member is None:
            continue
        usage = member.get("usage")
        assert ("usage" in end) == ("usage" in member)
        assert usage is None or end["usage"]["output_tokens"] == usage["output_tokens"]


async def test_errors_have_anthropics_shape(openrouter: Upstream) -> None:
    status, text = await openrouter.post(messages=[])
    error = json.loads(text)
    assert (status, error["type"]) == (400, "error")
    assert error["error"]["type"] == "invalid_request_error"
    await openrouter.tell(error_midstream=True)
    assert (await openrouter.events())[-1]["type"] == "error"


async def test_the_native_provider_wants_its_own_key_and_names_no_cost(native: Upstream) -> None:
    whole = await native.message()
    assert "cost" not in whole["usage"]
    assert whole["id"] == native.bill.rows()[-1].generation_id
    client = anthropic.AsyncAnthropic(api_key=KEYS["anthropic"], base_url=native.url)
    async with client:
        said = await client.messages.create(
            model=MODELS["anthropic"], max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )
        assert said.usage.output_tokens == 9
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="wrong").messages.create(
                model=MODELS["anthropic"],
                max_tokens=9,
                messages=[{"role": "user", "content": "Hi"}],
            )
