"""Simulator, webhook and lookups together: a tag that went up comes back as a generation."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import aiohttp
import httpx2
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from authz.endpoints.body import Body, parse
from authz.endpoints.edits import edit_body
from meter.api.app import create_app
from meter.api.services import (
    MIN_REPORTS_TOKEN_CHARS,
    ApiDependencies,
    ProviderReports,
)
from meter.clock import SystemClock
from meter.errors import InvalidRequest, ProviderUnavailable, StoreUnavailable
from meter.holds.hold import new_hold_id
from meter.identity.credential_resolver import Verifier
from meter.identity.signing_key_store import SigningKeys
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.passes import OwnIssuer
from meter.lookups.pending import ReportedGeneration
from meter.lookups.queue import LookupQueue
from meter.postgres.pool import PostgresPool
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.openrouter.generations import fetch_generation
from meter.providers.openrouter.key_usage import fetch_key_usage
from meter.providers.providers import Providers
from meter.providers.report_tags import ReportTags
from meter.reconciliation.reconciler import Reconciler
from meter.sealing import SecretText
from meter.services import Issuing, Services
from meter.settings import read_secret
from tests.books import PEPPER
from tests.patience import WAIT_S
from tests.splices import apply_edits
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.settings import SimulatorSettings

TAGS = ReportTags.from_master_key(b"m" * 32)
TOKEN = "token-of-the-reports-0123456789"
KEY = SecretText("sk-or-test")
PATH = "/api/v1/provider-reports/openrouter"
HELLO = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class NotedGenerations(LookupQueue):
    """The books' side: `holds` are live, everything else is ignored."""

    holds: set[UUID] = field(default_factory=set)
    noted: dict[UUID, str] = field(default_factory=dict)
    is_away: bool = False
    calls: int = 0
    has_more: asyncio.Event = field(default_factory=asyncio.Event)

    async def note(self, reports: Sequence[ReportedGeneration]) -> int:
        self.calls += 1
        if self.is_away:
            raise StoreUnavailable("away")
        fresh = {
            report.hold_id: report.generation_id
            for report in reports
            if report.hold_id in self.holds
        }
        self.noted |= fresh
        self.has_more.set()
        return len(fresh)


def meter_app(generations: NotedGenerations | None) -> FastAPI:
    """The real API; nothing but the reports is asked of it, so nothing else is there."""
    reports = None
    if generations is not None:
        reports = ProviderReports(SecretText(TOKEN), TAGS, generations)
    return create_app(
        ApiDependencies(
            services=Services(
                pool=cast(PostgresPool, None),
                pepper=PEPPER,
                clock=SystemClock(),
                issuing=Issuing(
                    OwnIssuer("http://meter.test", "tollkeeper"),
                    cast(SigningKeys, None),
                    cast(IssuerDocuments, None),
                ),
                jwts=cast(Verifier, None),
                provider_keys=cast(PostgresProviderKeys, None),
                providers=cast(Providers, SimpleNamespace(store=None)),
                reconciler=cast(Reconciler, None),
            ),
            registry=CollectorRegistry(),
            provider_reports=reports,
        )
    )


@asynccontextmanager
async def asking(generations: NotedGenerations | None) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=meter_app(generations))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://meter.test", headers=headers
    ) as client:
        yield client


@pytest.fixture
def generations() -> NotedGenerations:
    return NotedGenerations()


@pytest.fixture
async def client(generations: NotedGenerations) -> AsyncIterator[httpx2.AsyncClient]:
    async with asking(generations) as one:
        yield one


def payload(*reports: tuple[str, str]) -> dict[str, Any]:
    spans = [
        {
            "traceId": tag,
            "attributes": [{"key": "gen_ai.response.id", "value": {"stringValue": generation_id}}],
        }
        for tag, generation_id in reports
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


# The webhook


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_reports_of_live_holds_are_noted(
    generations: NotedGenerations, client: httpx2.AsyncClient, method: str
) -> None:
    hold_id, ended = new_hold_id(datetime.now(UTC)), new_hold_id(datetime.now(UTC))
    generations.holds = {hold_id}
    body = payload((TAGS.tag(hold_id), "gen-1"), (TAGS.tag(ended), "gen-2"), ("no tag", "gen-3"))
    for _ in range(2):
        answer = await client.request(method, PATH, json=body)
        assert (answer.status_code, answer.json()) == (200, {"noted": 1})
    assert generations.noted == {hold_id: "gen-1"}
    metrics = (await client.get("/metrics")).text
    assert 'tollkeeper_provider_reports_total{outcome="noted"} 2.0' in metrics
    assert 'tollkeeper_provider_reports_total{outcome="ignored"} 4.0' in metrics


@pytest.mark.parametrize("content", [b"", b"{}", b'{"resourceSpans":[]}'])
async def test_a_test_of_the_connection_succeeds(
    generations: NotedGenerations, client: httpx2.AsyncClient, content: bytes
) -> None:
    headers = {"X-Test-Connection": "true", "Content-Type": "application/json"}
    answer = await client.post(PATH, content=content, headers=headers)
    assert answer.status_code == 200
    assert generations.calls == 0


@pytest.mark.parametrize(
    "authorization",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [f"Bearer {TOKEN}x"],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Basic {TOKEN}"],
        [TOKEN],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        ["Bearer \xfc\xe9"],
    ],
)
async def test_without_the_token_nothing_is_taken(
    generations: NotedGenerations, client: httpx2.AsyncClient, authorization: list[str]
) -> None:
    del client.headers["authorization"]
    hold_id = new_hold_id(datetime.now(UTC))
    generations.holds = {hold_id}
    headers = [(b"authorization", one.encode("latin-1")) for one in authorization]
    answer = await client.post(PATH, json=payload((TAGS.tag(hold_id), "gen-1")), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert TOKEN not in answer.text
    assert generations.calls == 0


async def test_there_is_no_such_route_where_reports_are_off() -> None:
    async with asking(None) as client:
        answer = await client.post(PATH, json=payload())
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")


async def test_books_that_are_away_make_the_sender_try_again(
    generations: NotedGenerations, client: httpx2.AsyncClient
) -> None:
    generations.is_away = True
    answer = await client.post(
        PATH, json=payload((TAGS.tag(new_hold_id(datetime.now(UTC))), "gen-1"))
    )
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"\xff", "application/json", 422),
        (b"{}", "application/x-protobuf", 415),
        (b'{"a":"' + b"a" * 2**20 + b'"}', "application/json", 413),
    ],
)
async def test_odd_bodies_are_refused(
    client: httpx2.AsyncClient, content: bytes, media_type: str, status: int
) -> None:
    answer = await client.post(PATH, content=content, headers={"Content-Type": media_type})
    assert answer.status_code == status


def test_a_token_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    short = SecretText("x" * (MIN_REPORTS_TOKEN_CHARS - 1))
    with pytest.raises(InvalidRequest):
        ProviderReports(short, TAGS, NotedGenerations())
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    read = read_secret(None, file, "the token")
    assert read is not None and read.reveal() == TOKEN
    assert read_secret(SecretStr(""), None, "the token") is None
    file.write_text("\n")
    with pytest.raises(InvalidRequest):
        read_secret(None, file, "the token")
    with pytest.raises(InvalidRequest):
        read_secret(None, tmp_path / "none", "the token")


# The whole way round


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        task = asyncio.create_task(server.serve([listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await task


@asynccontextmanager
async def simulator(bill: Bill, settings: SimulatorSettings) -> AsyncIterator[str]:
    runner = web.AppRunner(build_app(bill, settings), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1"
    await runner.cleanup()


def tagged(members: dict[str, Any], hold_id: UUID) -> bytes:
    """The body as it reaches the provider."""
    raw = json.dumps(members, ensure_ascii=False).encode()
    body = parse(raw)
    assert isinstance(body, Body)
    return apply_edits(raw, edit_body(body, 50, TAGS.tag(hold_id)))


async def test_every_tagged_request_leads_to_its_record(
    generations: NotedGenerations, tmp_path: Path
) -> None:
    bill = Bill(tmp_path / "bill.jsonl")
    holds = [new_hold_id(datetime.now(UTC)) for _ in range(3)]
    generations.holds = set(holds)
    bodies = [
        tagged(HELLO, holds[0]),
        tagged({**HELLO, "user": "Jürgen 🙂", "trace": {"trace_id": "the client's"}}, holds[1]),
        tagged({**HELLO, "trace": None, "max_tokens": None}, holds[2]),
    ]
    async with serving(meter_app(generations)) as meter, aiohttp.ClientSession() as session:
        settings = SimulatorSettings(
            generation_delay_ms=0,
            broadcast_url=f"{meter}{PATH}",
            broadcast_token=SecretStr(TOKEN),
            broadcast_delay_ms=10,
        )
        async with simulator(bill, settings) as base:
            headers = {"Authorization": f"Bearer {KEY.reveal()}"}
            answered = {}
            for hold_id, body in zip(holds, bodies, strict=True):
                url = f"{base}/chat/completions"
                async with session.post(url, data=body, headers=headers) as response:
                    answered[hold_id] = (await response.json())["id"]
            async with asyncio.timeout(WAIT_S):
                while len(generations.noted) < len(holds):
                    generations.has_more.clear()
                    await generations.has_more.wait()
            records = [await fetch_generation(session, base, KEY, answered[one]) for one in holds]
            total = await fetch_key_usage(session, base, KEY)
    await bill.close()
    assert generations.noted == answered
    for record, row in zip(records, bill.rows(), strict=True):
        assert record is not None
        assert record.generation_id == row.generation_id
        assert record.usage.cost_usd == Decimal(row.cost)
        assert record.usage.tokens.prompt == row.prompt_tokens
        assert record.usage.tokens.completion == row.completion_tokens
        assert record.usage.tokens.cached == row.cached_tokens
        assert record.model == row.model
        assert not record.is_cancelled
    assert total == sum(Decimal(row.cost) for row in bill.rows())


async def test_a_generation_is_unknown_until_its_time(tmp_path: Path) -> None:
    bill = Bill(tmp_path / "bill.jsonl")
    settings = SimulatorSettings(generation_delay_ms=60_000)
    async with simulator(bill, settings) as base, aiohttp.ClientSession() as session:
        url, headers = f"{base}/chat/completions", {"Authorization": "Bearer sk-or-x"}
        async with session.post(url, json=HELLO, headers=headers) as response:
            generation_id = (await response.json())["id"]
        assert await fetch_generation(session, base, KEY, generation_id) is None
        assert await fetch_generation(session, base, KEY, "gen-&id=x#ü") is None
        with pytest.raises(ProviderUnavailable, match="401"):
            await fetch_generation(session, base, SecretText("no key"), generation_id)
    await bill.close()


# A provider that behaves badly


@asynccontextmanager
async def bad_provider(response: web.StreamResponse | None) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        if response is not None:
            return response
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("response", "retry_after_s"),
    [
        (web.Response(status=429, headers={"Retry-After": "7"}), 7.0),
        (web.Response(status=429), None),
        (web.Response(status=503, headers={"Retry-After": "1"}), 1.0),
        (web.Response(status=500), None),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), None),
        (web.Response(status=200, text="<html>"), None),
        (web.Response(status=200, body=b" " * (256 * 1024 + 1)), None),
        (None, None),
    ],
)
async def test_what_is_no_answer_is_an_outage(
    response: web.StreamResponse | None, retry_after_s: float | None
) -> None:
    async with bad_provider(response) as base, aiohttp.ClientSession() as session:
        with pytest.raises(ProviderUnavailable) as raised:
            await fetch_generation(session, base, KEY, "gen-1")
    assert raised.value.retry_after_s == retry_after_s
    assert KEY.reveal() not in str(raised.value)
