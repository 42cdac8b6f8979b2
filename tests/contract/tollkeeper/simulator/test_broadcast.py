"""The simulator's reports: every billed generation, at least once, whatever became of its reply."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.patience import WAIT_S
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.settings import SimulatorSettings

CHAT = "/api/v1/chat/completions"
TOKEN = "token-of-the-reports"
HELLO = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}


@dataclass
class Receiver:
    """A webhook that keeps what it is sent; `refusals` is how many posts it refuses first."""

    refusals: int = 0
    posts: int = 0
    authorization: set[str] = field(default_factory=set)
    spans: list[dict[str, Any]] = field(default_factory=list)
    has_more: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.posts += 1
        self.authorization.add(request.headers["Authorization"])
        assert request.content_type == "application/json"
        body = json.loads(await request.read(), parse_float=Decimal)
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=503)
        for resource in body["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += scope["spans"]
        self.has_more.set()
        return web.json_response({})

    def attributes(self) -> list[dict[str, Any]]:
        """The attributes of each span by name."""
        return [
            {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
            for span in self.spans
        ]

    def generation_ids(self) -> list[str]:
        return [one["gen_ai.response.id"] for one in self.attributes()]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.spans) < count:
                self.has_more.clear()
                await self.has_more.wait()


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def simulator(
    bill: Bill, webhook: str | None, delay_ms: int = 0
) -> AsyncIterator[aiohttp.ClientSession]:
    settings = SimulatorSettings(
        key=SecretStr("sk-or-test"),
        generation_delay_ms=0,
        broadcast_url=webhook,
        broadcast_token=SecretStr(TOKEN),
        broadcast_delay_ms=delay_ms,
    )
    headers = {"Authorization": "Bearer sk-or-test"}
    async with (
        listening(build_app(bill, settings)) as base,
        aiohttp.ClientSession(base, headers=headers) as session,
    ):
        yield session


@pytest.fixture
async def bill(tmp_path: Path) -> AsyncIterator[Bill]:
    one = Bill(tmp_path / "bill.jsonl")
    yield one
    await one.close()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def webhook(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.post("/reports", receiver.take)])
    async with listening(app) as base:
        yield f"{base}/reports"


async def ask(session: aiohttp.ClientSession, **members: Any) -> bytes:
    async with session.post(CHAT, json={**HELLO, **members}) as response:
        assert response.status == 200
        return await response.read()


async def misbehave(session: aiohttp.ClientSession, **behaviour: Any) -> None:
    async with session.post("/control/behaviours", json=behaviour) as response:
        assert response.status == 201, await response.text()


async def test_a_report_says_what_the_bill_says(
    bill: Bill, receiver: Receiver, webhook: str
) -> None:
    async with simulator(bill, webhook) as session:
        trace = {"trace_id": "ab" * 16, "trace_name": "n", "tollkeeper": "cd" * 16, "depth": 2}
        await ask(session, trace=trace)
        await receiver.until(1)
    (row,), (span,), (attributes,) = bill.rows(), receiver.spans, receiver.attributes()
    assert receiver.authorization == {f"Bearer {TOKEN}"}
    assert span["traceId"] == "ab" * 16
    assert attributes["gen_ai.response.id"] == row.generation_id
    assert attributes["gen_ai.usage.total_cost"] == Decimal(row.cost)
    assert attributes["gen_ai.usage.input_tokens"] == str(row.prompt_tokens)
    assert attributes["gen_ai.usage.output_tokens"] == str(row.completion_tokens)
    assert attributes["trace.metadata.tollkeeper"] == "cd" * 16
    assert attributes["trace.metadata.depth"] == "2"
    assert "trace.metadata.trace_name" not in attributes


async def test_a_request_without_a_trace_gets_an_id_of_the_providers(
    bill: Bill, receiver: Receiver, webhook: str
) -> None:
    async with simulator(bill, webhook) as session:
        await ask(session)
        await ask(session, trace="text")
        await receiver.until(2)
    ids = {span["traceId"] for span in receiver.spans}
    assert len(ids) == 2
    assert all(len(bytes.fromhex(one)) == 16 for one in ids)


async def test_a_client_that_leaves_and_a_reply_that_is_cut_are_reported(
    bill: Bill, receiver: Receiver, webhook: str
) -> None:
    async with simulator(bill, webhook) as session:
        await misbehave(session, times=1, cut_after_bytes=40)
        with pytest.raises(aiohttp.ClientError):
            await ask(session, stream=True)
        await misbehave(session, times=1, chunk_sizes=[20], chunk_delay_ms=20)
        left = await session.post(CHAT, json={**HELLO, "stream": True})
        await left.content.read(1)
        left.close()
        await receiver.until(2)
    assert sorted(receiver.generation_ids()) == sorted(row.generation_id for row in bill.rows())


async def test_refusals_are_not_reported_and_an_omitted_report_never_comes(
    bill: Bill, receiver: Receiver, webhook: str
) -> None:
    async with simulator(bill, webhook) as session:
        await misbehave(session, times=1, status=429)
        async with session.post(CHAT, json=HELLO) as response:
            assert response.status == 429
        await misbehave(session, times=1, omit_report=True)
        await ask(session)
        await ask(session)
        await receiver.until(1)
    async with simulator(bill, webhook):
        await receiver.until(2)
    silent, reported = (row.generation_id for row in bill.rows())
    assert silent != reported
    assert set(receiver.generation_ids()) == {reported}


async def test_reports_wait_for_a_webhook_that_is_away(
    bill: Bill, receiver: Receiver, webhook: str
) -> None:
    receiver.refusals = 2
    async with simulator(bill, webhook) as session:
        await asyncio.gather(*(ask(session) for _ in range(5)))
        await receiver.until(5)
    assert receiver.posts >= 3
    assert sorted(receiver.generation_ids()) == sorted(row.generation_id for row in bill.rows())


async def test_what_was_not_reported_before_a_restart_is_reported_after_it(
    tmp_path: Path, receiver: Receiver, webhook: str
) -> None:
    path = tmp_path / "bill.jsonl"
    first = Bill(path)
    async with simulator(first, webhook, delay_ms=60_000) as session:
        await ask(session, trace={"trace_id": "ef" * 16})
    await first.close()
    assert receiver.spans == []
    # A row that is older than what is told again stays untold.
    old = {**json.loads(path.read_text()), "generation_id": "gen-old", "at": "2020-01-01T00:00:00Z"}
    with path.open("a") as lines:
        lines.write(json.dumps(old) + "\n")
    second = Bill(path)
    async with simulator(second, webhook):
        await receiver.until(1)
    await second.close()
    assert [span["traceId"] for span in receiver.spans] == ["ef" * 16]


async def test_bills_of_former_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    row = {
        "generation_id": "gen-1",
        "model": "openai/gpt-4o",
        "cost": "0.5",
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "reasoning_tokens": 0,
        "is_streamed": False,
        "finish_reason": "stop",
    }
    path.write_text(json.dumps(row) + "\n")
    bill = Bill(path)
    found = bill.find("gen-1")
    assert found is not None
    assert found.has_report
    assert found.trace_id is None
    await bill.close()


async def test_a_generation_can_be_unknown_for_good_and_a_cost_wrong(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    bill = Bill(path)
    async with simulator(bill, None) as session:
        await misbehave(session, times=1, omit_generation=True)
        hidden = json.loads(await ask(session))["id"]
        await misbehave(session, times=1, wrong_cost="1.25")
        wrong = json.loads(await ask(session), parse_float=Decimal)
    await bill.close()
    assert wrong["usage"]["cost"] == Decimal("1.25")
    again = Bill(path)
    async with simulator(again, None) as session:
        async with session.get(f"/api/v1/generation?id={hidden}") as response:
            assert response.status == 404
        async with session.get(f"/api/v1/generation?id={wrong['id']}") as response:
            record = json.loads(await response.text(), parse_float=Decimal)["data"]
        async with session.get("/api/v1/key") as response:
            total = json.loads(await response.text(), parse_float=Decimal)["data"]["usage"]
    await again.close()
    billed = [Decimal(row.cost) for row in again.rows()]
    assert record["total_cost"] == billed[1] != Decimal("1.25")
    assert total == sum(billed)


async def test_a_wrong_cost_must_be_money(bill: Bill) -> None:
    async with simulator(bill, None) as session:
        for text in ("", "-1", "1e3", "0.1234567890123", "01", "1 "):
            wrong = {"wrong_cost": text}
            async with session.post("/control/behaviours", json=wrong) as response:
                assert response.status == 400, text
