"""`tollkeeper envoy` on SIGTERM: the requests under way are answered, both logs are complete."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from authz.protos import ext_authz_pb2 as pb
from tests.e2e.envoy.envoy_harness import (
    Decisions,
    Entries,
    Pause,
    Provider,
    allow,
    json_reply,
    start_authz,
    start_http,
    start_ingest,
)
from tests.e2e.running_stack import fresh_environment
from tests.patience import WAIT_S
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.supervision.probes import answers_ok

HOLD_ID = "ab" * 16
# Long enough for the command to begin to drain, most of the time.
REPLY_AFTER_S = 1.5


@pytest.fixture
def entries() -> Entries:
    return Entries()


@asynccontextmanager
async def commanded_envoy(
    folder: Path, entries: Entries, pause: Pause, drain_s: float
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The command of containers, before a provider that pauses before it answers."""

    async def always(_: pb.CheckRequest) -> pb.CheckResponse:
        return allow(HOLD_ID)

    async def slowly(request: web.Request) -> web.StreamResponse:
        await pause.wait()
        return await json_reply(request)

    async with AsyncExitStack() as stack:
        authz = await start_authz(Decisions(always), f"unix:{folder}/authz.sock")
        stack.push_async_callback(authz.stop, 0)
        ingest = await start_ingest(entries, f"unix:{folder}/ingest.sock")
        stack.push_async_callback(ingest.stop, None)
        runner, provider_port = await start_http(Provider(slowly))
        stack.push_async_callback(runner.cleanup)
        port, admin = free_port(), folder / "admin.sock"
        environment = fresh_environment(folder, port, port) | {
            "TOLLKEEPER_ENVOY_LISTEN": f"127.0.0.1:{port}",
            "TOLLKEEPER_AUTHZ_ADDRESS": f"unix:{folder}/authz.sock",
            "TOLLKEEPER_INGEST_ADDRESS": f"unix:{folder}/ingest.sock",
            "TOLLKEEPER_METER_API_ADDRESS": "127.0.0.1:1",
            "TOLLKEEPER_PROVIDER_BASE_URL": f"http://127.0.0.1:{provider_port}/api/v1",
            "TOLLKEEPER_ENVOY_ACCESS_LOG": f"{folder}/access.jsonl",
            "TOLLKEEPER_ENVOY_ADMIN_SOCKET": str(admin),
            "TOLLKEEPER_ENVOY_CONFIG": f"{folder}/envoy.yaml",
            "TOLLKEEPER_ENVOY_DRAIN_S": str(drain_s),
        }
        envoy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tollkeeper", "envoy"), env=environment
        )
        try:
            async with asyncio.timeout(WAIT_S):
                while not await answers_ok("http://envoy/ready", admin):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            yield f"http://127.0.0.1:{port}", envoy
        finally:
            if envoy.returncode is None:
                envoy.kill()
                await envoy.wait()


async def ask(session: aiohttp.ClientSession, url: str) -> int:
    headers = {"content-type": "application/json"}
    async with session.post(f"{url}/v1/chat/completions", data=b"{}", headers=headers) as reply:
        await reply.read()
        return reply.status


async def test_a_request_under_way_is_answered_and_logged_twice(
    server_root: Path, entries: Entries
) -> None:
    folder = server_root / "ending"
    folder.mkdir()
    pause = Pause()
    async with (
        commanded_envoy(folder, entries, pause, drain_s=60) as (url, envoy),
        aiohttp.ClientSession() as session,
    ):
        asked = asyncio.create_task(ask(session, url))
        await asyncio.wait_for(pause.reached.wait(), WAIT_S)
        envoy.send_signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(REPLY_AFTER_S, pause.over.set)
        assert await asked == 200
        assert await asyncio.wait_for(envoy.wait(), WAIT_S) == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(session, url)
    (line,) = (folder / "access.jsonl").read_text().splitlines()
    assert (json.loads(line)["hold_id"], len(entries.seen)) == (HOLD_ID, 1)


async def test_a_drain_has_an_end_and_envoy_ends_with_the_command(
    server_root: Path, entries: Entries
) -> None:
    folder = server_root / "ending-soon"
    folder.mkdir()
    pause = Pause()
    async with (
        commanded_envoy(folder, entries, pause, drain_s=0) as (url, envoy),
        aiohttp.ClientSession() as session,
    ):
        asked = asyncio.create_task(ask(session, url))
        await asyncio.wait_for(pause.reached.wait(), WAIT_S)
        envoy.send_signal(signal.SIGTERM)
        with pytest.raises(aiohttp.ClientError):
            await asked
        assert await asyncio.wait_for(envoy.wait(), WAIT_S) == 0
        pause.over.set()


async def test_envoy_ends_when_its_command_is_killed(server_root: Path, entries: Entries) -> None:
    folder = server_root / "ending-killed"
    folder.mkdir()
    async with commanded_envoy(folder, entries, Pause(), drain_s=10) as (_, envoy):
        os.kill(envoy.pid, signal.SIGKILL)
        await envoy.wait()
        async with asyncio.timeout(WAIT_S):
            while await answers_ok("http://envoy/ready", folder / "admin.sock"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
