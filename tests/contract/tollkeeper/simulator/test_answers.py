"""The simulator over real TCP: the provider's shapes, the exact bill, the misbehaviour."""

import asyncio
import base64
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.patience import until
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill, BillError
from tollkeeper.simulator.settings import SimulatorSettings

# Each worker imports this module; only the one that runs these tests shall import the client.
if TYPE_CHECKING:
    import openai

KEY = "sk-or-test"
CHAT = "/api/v1/chat/completions"
HELLO = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}


@dataclass
class MovableClock:
    """A clock that moves when a test says so."""

    at: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Simulator:
    """A running simulator and a client of it."""

    session: aiohttp.ClientSession
    port: int
    path: Path
    clock: MovableClock

    async def ask(self, asked: dict[str, Any], path: str = CHAT) -> tuple[Any, bytes]:
        """The response and its whole body."""
        async with self.session.post(path, json=asked) as response:
            return response, await response.read()

    async def ask_json(self, asked: dict[str, Any], path: str = CHAT) -> dict[str, Any]:
        response, body = await self.ask(asked, path)
        assert response.status == 200, body
        found: dict[str, Any] = json.loads(body, parse_float=Decimal, parse_int=int)
        return found

    async def misbehave(self, **behaviour: Any) -> None:
        async with self.session.post("/control/behaviours", json=behaviour) as response:
            assert response.status == 201, await response.text()

    async def generation(self, generation_id: str) -> tuple[int, dict[str, Any]]:
        url = f"/api/v1/generation?id={generation_id}"
        async with self.session.get(url) as response:
            text = await response.text()
        return response.status, json.loads(text, parse_float=Decimal).get("data", {})

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def openai(self) -> "openai.AsyncOpenAI":
        import openai

        base_url = f"http://127.0.0.1:{self.port}/api/v1"
        return openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0)


@asynccontextmanager
async def running(
    path: Path,
    *,
    sync: Callable[[int], None] = os.fsync,
    settings: SimulatorSettings | None = None,
) -> AsyncIterator[Simulator]:
    bill, clock = Bill(path, sync), MovableClock()
    chosen = settings or SimulatorSettings(key=SecretStr(KEY))
    runner = web.AppRunner(build_app(bill, chosen, seed=7, now=clock), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        yield Simulator(session, port, path, clock)
    await runner.cleanup()
    await bill.close()


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with running(tmp_path / "bill.jsonl") as one:
        yield one


def data_events(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of each event, costs as decimals."""
    lines = [line for line in stream.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line[6:], parse_float=Decimal) for line in lines]


# The catalogue


async def test_lists_more_than_a_hundred_models_without_a_key(simulator: Simulator) -> None:
    url = f"http://127.0.0.1:{simulator.port}/api/v1/models?output_modalities=all"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        models = (await response.json())["data"]
    ids = {model["id"] for model in models}
    free = [model for model in models if model["id"].endswith(":free")]
    assert len(ids) == len(models) >= 120
    assert len(free) >= 10
    assert all(set(model["pricing"].values()) == {"0"} for model in free)
    assert "openai/text-embedding-3-small" in ids


async def test_prices_are_decimal_strings_of_at_most_twelve_decimals(simulator: Simulator) -> None:
    async with simulator.session.get("/api/v1/models") as response:
        models = (await response.json())["data"]
    priced: dict[str, str] = {}
    for model in models:
        for name, price in model["pricing"].items():
            if name == "overrides":
                continue
            assert isinstance(price, str)
            assert "e" not in price.lower()
            assert len(price.partition(".")[2]) <= 12
            if Decimal(price) > 0:
                priced[name] = model["id"]
    assert set(priced) == {
        "prompt",
        "completion",
        "request",
        "image",
        "web_search",
        "internal_reasoning",
        "input_cache_read",
        "input_cache_write",
        "image_output",
    }


# Replies


async def test_a_json_reply_has_the_usage_and_the_generation_id(simulator: Simulator) -> None:
    response, body = await simulator.ask({**HELLO, "max_tokens": 3})
    reply = json.loads(body, parse_float=Decimal)
    usage = reply["usage"]
    assert response.headers["X-Generation-Id"] == reply["id"]
    assert reply["id"].startswith("gen-")
    assert reply["choices"][0]["finish_reason"] == "length"
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3
    expected = usage["prompt_tokens"] * Decimal("0.00000015") + 3 * Decimal("0.0000006")
    assert usage["cost"] == expected
    assert usage["cost_details"] == {
        "upstream_inference_cost": expected,
        "upstream_inference_prompt_cost": usage["prompt_tokens"] * Decimal("0.00000015"),
        "upstream_inference_completions_cost": 3 * Decimal("0.0000006"),
    }
    assert usage["is_byok"] is False
    assert set(usage["prompt_tokens_details"]) == {
        "cached_tokens",
        "cache_write_tokens",
        "audio_tokens",
    }


async def test_a_stream_ends_with_its_usage_and_then_done(simulator: Simulator) -> None:
    response, body = await simulator.ask({**HELLO, "stream": True})
    events = data_events(body)
    assert response.content_type == "text/event-stream"
    assert body.startswith(b": OPENROUTER PROCESSING\n\n")
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert [event for event in events if "usage" in event] == [events[-1]]
    assert {event["id"] for event in events} == {response.headers["X-Generation-Id"]}
    assert Decimal(simulator.rows()[0]["cost"]) == events[-1]["usage"]["cost"]


async def test_the_same_request_is_answered_with_the_same_words(simulator: Simulator) -> None:
    first, second = await simulator.ask_json(HELLO), await simulator.ask_json(HELLO)
    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]
    streamed = data_events((await simulator.ask({**HELLO, "stream": True}))[1])
    assert 8 <= streamed[-1]["usage"]["completion_tokens"] <= 40


async def test_every_choice_is_paid_for(simulator: Simulator) -> None:
    reply = await simulator.ask_json({**HELLO, "n": 3, "max_tokens": 5})
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert reply["usage"]["completion_tokens"] == 15


async def test_reasoning_counts_against_the_limit_and_has_its_price(simulator: Simulator) -> None:
    asked = {**HELLO, "model": "perplexity/sonar-deep-research"}
    usage = (await simulator.ask_json(asked))["usage"]
    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < thought < usage["completion_tokens"]
    assert usage["cost"] == (
        usage["prompt_tokens"] * Decimal("0.000002")
        + (usage["completion_tokens"] - thought) * Decimal("0.000008")
        + thought * Decimal("0.000003")
    )
    limited = (await simulator.ask_json({**asked, "max_completion_tokens": 2}))["usage"]
    assert limited["completion_tokens"] == 2


async def test_images_cost_tokens_and_their_own_price(simulator: Simulator) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": "Look"}
    asked = {
        "model": "openai/gpt-4-turbo",
        "messages": [{"role": "user", "content": [text, picture]}],
    }
    usage = (await simulator.ask_json(asked))["usage"]
    assert usage["prompt_tokens"] >= 85
    tokens = usage["prompt_tokens"] * Decimal("0.00001")
    words = usage["completion_tokens"] * Decimal("0.00003")
    assert usage["cost"] == tokens + words + Decimal("0.01445")


async def test_requests_and_searches_have_their_prices(simulator: Simulator) -> None:
    usage = (await simulator.ask_json({**HELLO, "model": "perplexity/sonar"}))["usage"]
    assert usage["cost"] == usage["total_tokens"] * Decimal("0.000001") + Decimal("0.005")
    searched = {**HELLO, "model": "perplexity/sonar-pro", "web_search_options": {}}
    usage = (await simulator.ask_json(searched))["usage"]
    tokens = usage["prompt_tokens"] * Decimal("0.000003")
    words = usage["completion_tokens"] * Decimal("0.000015")
    assert usage["cost"] == tokens + words + Decimal("0.005")
    plain = (await simulator.ask_json({**HELLO, "max_tokens": 1}))["usage"]
    online = {**HELLO, "max_tokens": 1, "model": "openai/gpt-4o-mini:online"}
    usage = (await simulator.ask_json(online))["usage"]
    assert usage["cost"] == plain["cost"] + Decimal("0.02")


async def test_completions_answer_every_prompt(simulator: Simulator) -> None:
    asked = {"model": "openai/gpt-3.5-turbo-instruct", "prompt": ["Say", "this"], "max_tokens": 4}
    path = "/api/v1/completions"
    reply = await simulator.ask_json({**asked, "n": 2}, path)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"]["completion_tokens"] == 16
    _, body = await simulator.ask({**asked, "prompt": "Say", "stream": True}, path)
    events = data_events(body)
    assert "".join(c["text"] for e in events for c in e["choices"])
    assert events[-1]["usage"]["completion_tokens"] == 4


async def test_a_body_of_twenty_mebibytes_is_taken(simulator: Simulator) -> None:
    url = "data:image/png;base64," + "A" * (20 * 1024 * 1024)
    content = [{"type": "image_url", "image_url": {"url": url}}]
    asked = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": content}]}
    usage = (await simulator.ask_json(asked))["usage"]
    assert 85 <= usage["prompt_tokens"] <= 2_000


async def test_cached_and_written_tokens_have_their_prices(simulator: Simulator) -> None:
    seen = {"read": 0, "written": 0}
    for number in range(8):
        part = {"type": "text", "text": f"{number} " * 200, "cache_control": {"type": "ephemeral"}}
        messages = [{"role": "user", "content": [part]}]
        asked = {"model": "anthropic/claude-3.5-haiku", "messages": messages}
        usage = (await simulator.ask_json(asked))["usage"]
        read = usage["prompt_tokens_details"]["cached_tokens"]
        written = usage["prompt_tokens_details"]["cache_write_tokens"]
        seen = {"read": seen["read"] + read, "written": seen["written"] + written}
        assert usage["cost"] == (
            (usage["prompt_tokens"] - read - written) * Decimal("0.0000008")
            + read * Decimal("0.00000008")
            + written * Decimal("0.000001")
            + usage["completion_tokens"] * Decimal("0.000004")
        )
    assert seen["read"] > 0
    assert seen["written"] > 0


@pytest.mark.parametrize("text", ["", "a", "é" * 50, "\U0001f600" * 40, "plain " * 500])
async def test_prompt_tokens_never_exceed_the_body(simulator: Simulator, text: str) -> None:
    asked = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": text}] * 3}
    body = json.dumps(asked, ensure_ascii=False).encode()
    async with simulator.session.post(CHAT, data=body) as response:
        usage = (await response.json())["usage"]
    assert 0 < usage["prompt_tokens"] <= len(body)


async def test_free_models_are_billed_at_nothing(simulator: Simulator) -> None:
    model = "meta-llama/llama-3.3-70b-instruct:free"
    reply = await simulator.ask_json({**HELLO, "model": model})
    assert reply["usage"]["cost"] == 0
    assert simulator.rows()[0]["cost"] == "0"
    assert simulator.rows()[0]["model"] == model


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({**HELLO, "model": "nobody/knows"}, 400),
        ({"model": "openai/gpt-4o-mini"}, 400),
        ({**HELLO, "max_tokens": 0}, 400),
        ({**HELLO, "model": "openai/text-embedding-3-small"}, 404),
    ],
)
async def test_refusals_have_the_error_shape_and_are_not_billed(
    simulator: Simulator, asked: dict[str, Any], status: int
) -> None:
    response, body = await simulator.ask(asked)
    assert response.status == status
    assert json.loads(body)["error"]["code"] == status
    assert simulator.rows() == []


@pytest.mark.parametrize("value", ["", "Bearer ", "Bearer sk-or-other", "Basic sk-or-test"])
async def test_a_wrong_key_is_401(simulator: Simulator, value: str) -> None:
    headers = {"Authorization": value}
    async with simulator.session.post(CHAT, json=HELLO, headers=headers) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == 401
    assert simulator.rows() == []


# The openai client


async def test_the_openai_client_chats_streams_and_embeds(simulator: Simulator) -> None:
    async with simulator.openai() as client:
        whole = await client.chat.completions.create(
            model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}]
        )
        stream = await client.chat.completions.create(
            model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        packed = await client.embeddings.create(
            model="openai/text-embedding-3-small", input=["a", "b"], dimensions=16
        )
        plain = await client.embeddings.create(
            model="openai/text-embedding-3-small",
            input=["a", "b"],
            dimensions=16,
            encoding_format="float",
        )
        listed = await client.models.list()
    assert whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert [one.embedding for one in packed.data] == [one.embedding for one in plain.data]
    assert len(packed.data[0].embedding) == 16
    assert len(listed.data) >= 120
    assert len(simulator.rows()) == 4


async def test_a_forced_tool_is_called_whole_and_streamed(simulator: Simulator) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    }
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    asked: Any = {
        **HELLO,
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }
    async with simulator.openai() as client:
        whole = await client.chat.completions.create(**asked)
        async with client.chat.completions.stream(**asked) as stream:
            streamed = await stream.get_final_completion()
    for reply in (whole, streamed):
        assert reply.choices[0].finish_reason == "tool_calls"
        calls: Any = reply.choices[0].message.tool_calls
        (call,) = calls
        assert call.function.name == "weather"
        assert set(json.loads(call.function.arguments)) == {"city", "days"}


async def test_a_reply_says_that_it_is_simulated(simulator: Simulator) -> None:
    whole = (await simulator.ask_json(HELLO))["choices"][0]
    assert whole["message"]["content"].startswith("Simulated answer: no model has read your")
    assert whole["message"]["content"].endswith(".")
    short = (await simulator.ask_json({**HELLO, "max_tokens": 1}))["choices"][0]
    assert short["message"]["content"] == "Simulated"


async def test_an_agent_calls_a_tool_once_and_then_speaks(simulator: Simulator) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("read", "write")]
    user = {"role": "user", "content": 'Now write {"path": "a"}'}
    asked = {**HELLO, "messages": [user], "tools": tools}
    choice = (await simulator.ask_json(asked))["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"] == {"name": "write", "arguments": '{"path": "a"}'}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "done"}
    asked["messages"] = [user, choice["message"], result]
    choice = (await simulator.ask_json(asked))["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"].startswith("Simulated answer")


async def test_a_reply_has_the_format_that_is_asked_for(simulator: Simulator) -> None:
    schema = {
        "type": "object",
        "properties": {"days": {"type": "array", "items": {"type": "integer"}, "minItems": 2}},
        "required": ["days"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "days", "schema": schema}}
    reply = await simulator.ask_json({**HELLO, "response_format": form})
    assert json.loads(reply["choices"][0]["message"]["content"]) == {"days": [7, 7]}
    reply = await simulator.ask_json({**HELLO, "response_format": {"type": "json_object"}})
    assert json.loads(reply["choices"][0]["message"]["content"])["simulated"] is True


# The bill


async def test_nothing_is_sent_before_the_row_is_synced(tmp_path: Path) -> None:
    may_sync, path = threading.Event(), tmp_path / "bill.jsonl"
    may_sync.set()

    def slow_sync(file: int) -> None:
        assert may_sync.wait(10)
        os.fsync(file)

    async with running(path, sync=slow_sync) as simulator:
        for is_stream in (False, True):
            may_sync.clear()
            request = asyncio.create_task(
                simulator.session.post(CHAT, json={**HELLO, "stream": is_stream})
            )
            done, _ = await asyncio.wait([request], timeout=0.2)
            assert not done
            may_sync.set()
            response = await request
            assert simulator.rows()[-1]["generation_id"] == response.headers["X-Generation-Id"]
            await response.read()


async def test_concurrent_requests_share_syncs_and_sum_exactly(tmp_path: Path) -> None:
    syncs: list[int] = []

    def counted(file: int) -> None:
        syncs.append(file)
        os.fsync(file)

    models = (
        "openai/gpt-4o-mini",
        "openai/gpt-5-nano",
        "anthropic/claude-3-haiku",
        "openai/gpt-4.1",
    )
    async with running(tmp_path / "bill.jsonl", sync=counted) as simulator:

        async def one(number: int) -> Decimal:
            asked = {
                **HELLO,
                "model": models[number % 4],
                "stream": number % 3 == 0,
                "user": str(number),
            }
            _, body = await simulator.ask(asked)
            reply = (
                data_events(body)[-1] if asked["stream"] else json.loads(body, parse_float=Decimal)
            )
            cost: Decimal = reply["usage"]["cost"]
            return cost

        costs = await asyncio.gather(*(one(number) for number in range(96)))
        async with simulator.session.get("/control/bill") as response:
            bill = await response.json()
        rows = simulator.rows()
    assert len(syncs) < 96
    assert len({row["generation_id"] for row in rows}) == 96 == bill["count"]
    assert sum(Decimal(row["cost"]) for row in rows) == sum(costs) == Decimal(bill["sum"])
    assert all(isinstance(row["cost"], str) for row in rows)


async def test_a_bill_that_cannot_be_written_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    is_full = False

    def sync(file: int) -> None:
        if is_full:
            raise OSError(28, "No space left on device")

    async with running(tmp_path / "bill.jsonl", sync=sync) as simulator:
        is_full = True
        response, _ = await simulator.ask(HELLO)
        assert response.status == 503
        assert simulator.rows() == []
        is_full = False
        await simulator.ask_json(HELLO)
        assert len(simulator.rows()) == 1


async def test_the_bill_survives_a_restart_without_its_partial_last_line(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    async with running(path) as simulator:
        reply = await simulator.ask_json(HELLO)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"generation_id":"gen-1-x","mod')
    async with running(path) as simulator:
        assert path.read_bytes() == whole
        status, record = await simulator.generation(reply["id"])
        assert status == 200
        assert record["total_cost"] == reply["usage"]["cost"]
        async with simulator.session.get("/api/v1/key") as response:
            key = json.loads(await response.text(), parse_float=Decimal)
        assert key["data"]["usage"] == reply["usage"]["cost"]
        await simulator.ask_json(HELLO)
    assert path.read_bytes().startswith(whole)
    assert len(path.read_text().splitlines()) == 2


async def test_a_damaged_or_shared_bill_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("not a row\n")
    with pytest.raises(BillError, match="line 1"):
        Bill(damaged)
    async with running(tmp_path / "bill.jsonl") as simulator:
        with pytest.raises(BillError, match="in use"):
            Bill(simulator.path)


# The generation's record


async def test_the_generation_is_known_only_after_its_delay(simulator: Simulator) -> None:
    reply = await simulator.ask_json(HELLO)
    assert (await simulator.generation(reply["id"]))[0] == 404
    simulator.clock.move(1.9)
    assert (await simulator.generation(reply["id"]))[0] == 404
    simulator.clock.move(0.2)
    status, record = await simulator.generation(reply["id"])
    assert status == 200
    assert record["total_cost"] == record["usage"] == reply["usage"]["cost"]
    assert record["native_tokens_prompt"] == reply["usage"]["prompt_tokens"]
    assert record["cancelled"] is False
    assert record["streamed"] is False
    assert (await simulator.generation("gen-1-nobody"))[0] == 404


async def test_a_client_that_leaves_is_billed_in_full(simulator: Simulator) -> None:
    await simulator.misbehave(chunk_delay_ms=50)
    response = await simulator.session.post(CHAT, json={**HELLO, "stream": True})
    await response.content.readany()
    response.close()
    row = simulator.rows()[0]

    async def is_noticed() -> object:
        simulator.clock.move(10)
        status, record = await simulator.generation(row["generation_id"])
        return status == 200 and record["cancelled"]

    await until(is_noticed, "the simulator notices that the client left")
    _, record = await simulator.generation(row["generation_id"])
    assert record["total_cost"] == Decimal(row["cost"]) > 0


# Misbehaviour


@pytest.mark.parametrize("sizes", [[1], [7], [3, 1, 100], [65536]])
async def test_chunk_sizes_change_no_byte(simulator: Simulator, sizes: list[int]) -> None:
    asked = {**HELLO, "stream": True, "max_tokens": 8}
    _, plain = await simulator.ask(asked)
    await simulator.misbehave(chunk_sizes=sizes, chunk_delay_ms=0, times=1)
    _, cut = await simulator.ask(asked)
    first, second = (row["generation_id"].encode() for row in simulator.rows())
    created = [first.split(b"-")[1], second.split(b"-")[1]]
    assert cut.replace(second, first).replace(created[1], created[0]) == plain


async def test_a_behaviour_is_for_what_matches_and_so_many_times(simulator: Simulator) -> None:
    match = {"model": "openai/gpt-4o-mini", "stream": False, "header": {"x-try": "1"}}
    body = {"error": {"message": "short of credit", "code": 402}}
    await simulator.misbehave(match=match, times=1, status=402, error_body=body)
    await simulator.ask_json(HELLO)
    headers = {"x-try": "1"}
    async with simulator.session.post(CHAT, json=HELLO, headers=headers) as response:
        assert response.status == 402
        assert await response.json() == body
    async with simulator.session.post(CHAT, json=HELLO, headers=headers) as response:
        assert response.status == 200
    assert len(simulator.rows()) == 2


async def test_a_fallback_serves_where_the_first_model_refuses(simulator: Simulator) -> None:
    await simulator.misbehave(match={"model": "openai/gpt-4o-mini"}, status=503)
    reply = await simulator.ask_json({**HELLO, "models": ["openai/gpt-4.1"]})
    assert reply["model"] == "openai/gpt-4.1" == simulator.rows()[0]["model"]


async def test_usage_can_be_silent_null_late_or_without_cost(simulator: Simulator) -> None:
    streamed = {**HELLO, "stream": True}
    await simulator.misbehave(silent_usage=True, times=2)
    assert "usage" not in await simulator.ask_json(HELLO)
    assert b'"usage"' not in (await simulator.ask(streamed))[1]
    await simulator.misbehave(usage_null=True, times=1)
    assert (await simulator.ask_json(HELLO))["usage"] is None
    await simulator.misbehave(usage_after_done=True, times=1)
    _, body = await simulator.ask(streamed)
    assert b'"usage"' in body.partition(b"data: [DONE]")[2]
    assert b'"usage"' not in body.partition(b"data: [DONE]")[0]
    await simulator.misbehave(zero_cost=True, times=1)
    assert (await simulator.ask_json(HELLO))["usage"]["cost"] == 0
    assert all(Decimal(row["cost"]) > 0 for row in simulator.rows())


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_reply_can_be_cut_after_so_many_bytes(
    simulator: Simulator, is_stream: bool
) -> None:
    await simulator.misbehave(cut_after_bytes=100)
    async with simulator.session.post(CHAT, json={**HELLO, "stream": is_stream}) as response:
        assert response.status == 200
        received = await response.content.readexactly(100)
        with pytest.raises(aiohttp.ClientError):
            await response.content.readexactly(1)
    assert len(received) == 100
    assert len(simulator.rows()) == 1


async def test_an_error_in_midstream_follows_a_200(simulator: Simulator) -> None:
    await simulator.misbehave(error_midstream=True)
    response, body = await simulator.ask({**HELLO, "stream": True})
    last = data_events(body)[-1]
    assert response.status == 200
    assert last["error"]["code"] == 502
    assert last["choices"][0]["finish_reason"] == "error"
    assert not any("usage" in event for event in data_events(body))


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
async def test_line_endings_are_as_told(simulator: Simulator, ending: str) -> None:
    await simulator.misbehave(line_ending=ending)
    _, body = await simulator.ask({**HELLO, "stream": True})
    assert body.endswith(f"data: [DONE]{ending}{ending}".encode())
    assert b"\n" not in body.replace(b"\r\n", b"" if ending == "\r\n" else b"\n")


async def test_size_text_tokens_and_id_are_as_told(simulator: Simulator) -> None:
    await simulator.misbehave(reply_bytes=50_000, times=1)
    assert len((await simulator.ask(HELLO))[1]) == 50_000
    await simulator.misbehave(text='said "so"\n', completion_tokens=99, prompt_tokens=5, times=1)
    reply = await simulator.ask_json({**HELLO, "max_tokens": 3})
    assert reply["choices"][0]["message"]["content"] == 'said "so"\n'
    assert reply["usage"]["completion_tokens"] == 99
    assert reply["usage"]["prompt_tokens"] == 5
    await simulator.misbehave(omit_generation_id=True, times=1)
    response, _ = await simulator.ask(HELLO)
    assert "X-Generation-Id" not in response.headers


async def test_unknown_members_of_a_behaviour_are_refused(simulator: Simulator) -> None:
    told = {"statuss": 500, "match": {"modell": "x"}}
    async with simulator.session.post("/control/behaviours", json=told) as response:
        assert response.status == 400
        message = (await response.json())["error"]["message"]
    assert "statuss" in message
    assert "match.modell" in message


async def test_behaviours_are_listed_cleared_and_reset(simulator: Simulator) -> None:
    await simulator.misbehave(status=500, times=2)
    await simulator.ask(HELLO)
    async with simulator.session.get("/control/behaviours") as response:
        assert await response.json() == {"behaviours": [{"status": 500, "times": 1}]}
    async with simulator.session.delete("/control/behaviours") as response:
        assert response.status == 204
    await simulator.ask_json(HELLO)
    async with simulator.session.post("/control/reset") as response:
        assert response.status == 204
    async with simulator.session.get("/control/requests") as response:
        assert await response.json() == {"count": 0, "requests": []}
    assert len(simulator.rows()) == 1


async def test_requests_are_kept_byte_for_byte_without_the_key(simulator: Simulator) -> None:
    body = json.dumps({**HELLO, "seed": 2**70, "top_p": 0.10}, indent=3).encode()
    async with simulator.session.post(f"{CHAT}?a=%20b", data=body, headers={"X-Odd": "Yes"}) as _:
        pass
    async with simulator.session.get("/control/requests?limit=1") as response:
        text = await response.text()
    (kept,) = json.loads(text)["requests"]
    assert base64.b64decode(kept["body_base64"]) == body
    assert kept["path"] == f"{CHAT}?a=%20b"
    assert ["X-Odd", "Yes"] in kept["headers"]
    assert kept["authorization_sha256"] == hashlib.sha256(f"Bearer {KEY}".encode()).hexdigest()
    assert KEY not in text
