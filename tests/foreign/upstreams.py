"""Puts servers that are not ours behind the gateway, as providers."""

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from tests.e2e.admin import Admin
from tests.e2e.running_stack import RunningStack, fresh_environment, wait_until
from tests.foreign.installing import NODE, node_modules, python_for, with_node
from tests.foreign.running import wait_known
from tests.servers import run_in_thread
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.supervision.children import die_with_parent
from tollkeeper.stack.supervision.probes import answers_ok

PICOS: Final = 10**12
PROMPT_USD, COMPLETION_USD = Decimal("0.5"), Decimal("1.5")
"""Prices for a million tokens of the upstreams that name none."""
AIMOCK_COST_USD: Final = Decimal("0.0000123")
AIMOCK_USAGE: Final = {"prompt_tokens": 20, "completion_tokens": 5, "cost": float(AIMOCK_COST_USD)}
KEY: Final = "sk-or-foreign-0123456789"


@dataclass(frozen=True, slots=True)
class UpstreamRun:
    """The charges of one reply and one stream of an upstream, by the evidence for them."""

    name: str
    usage: str
    evidence: tuple[str, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Upstream:
    """One server: its model, the text of its replies and what it names of their usage."""

    name: str
    model: str
    text: str
    usage: str
    charges: tuple[Decimal | None, Decimal | None]
    """The cost of a whole reply and of a stream; None where nobody can know it."""


MOCK_LLM: Final = Upstream("mock-llm", "gpt-5.2", "Hello", "never", (None, None))
FAKELLM: Final = Upstream(
    "fakellm",
    "gpt-4o-mini",
    "Hi there! This is a mock response from fakellm.",
    "not in streams",
    ((PROMPT_USD + 11 * COMPLETION_USD) / 10**6, None),
)
_AIMOCK_AT_PRICE: Final = (20 * PROMPT_USD + 5 * COMPLETION_USD) / 10**6
AIMOCK: Final = Upstream(
    "aimock", "gpt-4o", "Hello from aimock.", "tokens", (_AIMOCK_AT_PRICE, _AIMOCK_AT_PRICE)
)
AIMOCK_OPENROUTER: Final = Upstream(
    "aimock as OpenRouter",
    "openai/gpt-4o",
    "Hello from aimock.",
    "tokens and cost",
    (AIMOCK_COST_USD, AIMOCK_COST_USD),
)


def run_upstreams(admin: Admin, folder: Path) -> list[UpstreamRun]:
    """Ask each upstream for a reply and a stream, and compare the charges with what it named."""
    runs: list[UpstreamRun] = []
    with ExitStack() as running:
        mock_llm = running.enter_context(_mock_llm(folder))
        fakellm = running.enter_context(_fakellm(folder))
        aimock = running.enter_context(_aimock(folder))
        for upstream, base_url in ((MOCK_LLM, mock_llm), (FAKELLM, fakellm), (AIMOCK, aimock)):
            name = upstream.name
            terms = {"name": name, "dialect": "openai_compatible", "base_url": f"{base_url}/v1"}
            model = f"{name}/{upstream.model}"
            price = {
                "model": model,
                "prompt_usd_per_million": str(PROMPT_USD),
                "completion_usd_per_million": str(COMPLETION_USD),
            }
            admin.call("POST", "providers", terms)
            admin.call("POST", f"providers/{name}/prices", {"prices": [price]})
            runs.append(_try(admin, upstream, model))
        home = folder / "aimock-stack"
        environment = fresh_environment(home, free_port(), free_port())
        openrouter = {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": f"{aimock}/api/v1"}
        stack = replace(RunningStack(home, environment), environment=environment | openrouter)
        stack.up()
        try:
            runs.append(_try(Admin(stack), AIMOCK_OPENROUTER, AIMOCK_OPENROUTER.model))
        finally:
            stack.end()
    return runs


def _try(admin: Admin, upstream: Upstream, model: str) -> UpstreamRun:
    probe = admin.open_account()
    wait_until(lambda: admin.ask(probe, model=model).status == 200, f"{model} is served")
    customer, failures = admin.open_account(), list[str]()
    for is_stream in (False, True):
        reply = admin.ask(customer, model=model, stream=is_stream)
        if reply.status != 200 or upstream.text not in _text(reply.body, is_stream=is_stream):
            failures.append(f"{upstream.name}: {reply.status} {reply.body[-300:]!r}")
    wait_known(admin, customer)
    found = admin.rows(
        "SELECT kind, provider_cost_picos, amount_picos FROM usage_records"
        " JOIN ended_holds ON ended_holds.id = hold_id"
        " WHERE usage_records.account_id = $1 ORDER BY usage_records.started_at",
        customer.id,
    )
    if len(found) != len(upstream.charges):
        failures.append(f"{upstream.name}: {len(found)} requests settled")
    for row, expected in zip(found, upstream.charges, strict=False):
        cost = Decimal(row["provider_cost_picos"]) / PICOS
        is_right = 0 < row["provider_cost_picos"] <= row["amount_picos"]
        if expected is not None:
            is_right = cost == expected and row["kind"] == "settlement"
        if not is_right:
            failures.append(f"{upstream.name}: charged {cost} in place of {expected}")
    admin.check_ledger()
    evidence = tuple("usage" if row["kind"] == "settlement" else "estimate" for row in found)
    return UpstreamRun(upstream.name, upstream.usage, evidence, tuple(failures))


def _text(body: bytes, *, is_stream: bool) -> str:
    if not is_stream:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    deltas = [one["delta"] for line in lines for one in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@contextmanager
def _server(
    command: list[object], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    base = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
    server = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=with_node(base | dict(environment)),
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_listed(base_url: str) -> str:
    url = f"{base_url}/v1/models"
    wait_until(lambda: run_in_thread(lambda: answers_ok(url)), f"{url} answers")
    return base_url


@contextmanager
def _mock_llm(folder: Path) -> Iterator[str]:
    port = free_port()
    program = node_modules("node") / "@dwmkerr" / "mock-llm"
    entry = program / json.loads((program / "package.json").read_text())["main"]
    with _server([NODE, entry], folder, {"PORT": str(port)}):
        yield _wait_listed(f"http://127.0.0.1:{port}")


@contextmanager
def _aimock(folder: Path) -> Iterator[str]:
    port, fixtures = free_port(), folder / "fixtures"
    fixtures.mkdir()
    response = {"content": AIMOCK.text, "usage": AIMOCK_USAGE}
    fixture = {"match": {"userMessage": "Hello"}, "response": response}
    (fixtures / "hello.json").write_text(json.dumps({"fixtures": [fixture]}))
    program = node_modules("node") / ".bin" / "llmock"
    with _server([NODE, program, "-p", port, "-f", fixtures], folder, {}):
        yield _wait_listed(f"http://127.0.0.1:{port}")


@contextmanager
def _fakellm(folder: Path) -> Iterator[str]:
    """`fakellm` behind a list of models, which a provider must have and it does not."""
    port = free_port()
    program = python_for("upstreams").parent / "fakellm"
    home = folder / "fakellm"
    home.mkdir()
    subprocess.run([program, "init"], cwd=home, check=True, capture_output=True)
    with _server([program, "serve", "--port", port], home, {}), _listed(port) as base_url:
        yield _wait_listed(base_url)


@contextmanager
def _listed(port: int) -> Iterator[str]:
    """Serve `GET /v1/models`, and pass everything else on byte for byte."""
    listed = {"object": "list", "data": [{"id": FAKELLM.model, "object": "model"}]}
    own_port, loop, is_ready = free_port(), asyncio.new_event_loop(), threading.Event()

    async def models(_: web.Request) -> web.Response:
        return web.json_response(listed)

    async def pass_on(request: web.Request) -> web.StreamResponse:
        url = f"http://127.0.0.1:{port}{request.path}"
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession() as session:
            try:
                reply = await session.post(url, data=await request.read(), headers=headers)
            except aiohttp.ClientConnectionError:
                return web.Response(status=502, text="fakellm has not begun yet")
            answer = web.StreamResponse(status=reply.status)
            answer.content_type = reply.content_type
            await answer.prepare(request)
            async for piece in reply.content.iter_any():
                await answer.write(piece)
            await answer.write_eof()
            return answer

    async def start() -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.get("/v1/models", models), web.post("/{rest:.*}", pass_on)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", own_port).start()
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        is_ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    is_ready.wait()
    try:
        yield f"http://127.0.0.1:{own_port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
