"""The whole process, asked by a real gRPC client, with real stores."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import grpc.aio
import pytest

from authz.protos.ext_authz_pb2 import CheckResponse
from authz.request import AuthRequest
from authz.transports.transport import PATH
from chaos.locks import locked
from meter.identity.keys.key_text import MintedKey, Pepper, mint
from meter.postgres.pool import open_pool
from meter.providers.key_store import PostgresProviderKeys
from meter.sealing import MasterKey, SecretText
from tests.books import add_key
from tests.fakes import to_check
from tests.patience import WAIT_S, until
from tests.servers import Database, is_lock_awaited

MASTER_KEY = MasterKey(bytes(range(32)))


def check_method(channel: grpc.aio.Channel) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(PATH)


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"unix:{tmp_path_factory.mktemp('s')}/a.sock"


@pytest.fixture
async def channel(socket: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(socket, options=options) as made:
        yield made


async def furnish(database: Database) -> MintedKey:
    """An account with one dollar, a key, a model and a provider key."""
    key = mint()
    digest = Pepper.from_master_key(MASTER_KEY.reveal()).digest(key.plain.reveal())
    connection = await asyncpg.connect(database.owner_dsn)
    await connection.execute(
        "INSERT INTO accounts (id, email, balance_picos) VALUES ('u', 'u@example.org', 1e12)"
    )
    await add_key(connection, "u", key.credential_id, key.prefix, digest)
    await connection.execute(
        "INSERT INTO models (id, name, context_length, max_completion_tokens, listing) "
        "VALUES ('acme/one', 'One', 8000, 4000, '{}')"
    )
    await connection.execute(
        "INSERT INTO prices (model_id, prompt_picos, completion_picos, request_picos, "
        "image_picos, web_search_picos, reasoning_picos) "
        "VALUES ('acme/one', 1000000, 2000000, 0, 0, 0, 0)"
    )
    await connection.close()
    pool = await open_pool(database.owner_dsn, 1)
    keys = PostgresProviderKeys(pool, MASTER_KEY)
    await keys.set_key("openrouter", "system", SecretText("sk-or-planted-for-this-test"))
    await pool.close()
    return key


async def wait_until_ready(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                async with http.get("http://authz/readyz") as answer:
                    if (await answer.json())["components"]["provider_key"]["status"] == "ok":
                        return
            except OSError:
                pass
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def process_running(environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "authz"], env=environment, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Running:
    """The process, ready, with what a test needs to talk to it."""

    key: MintedKey
    books: "asyncpg.Connection[asyncpg.Record]"
    http: aiohttp.ClientSession
    process: "subprocess.Popen[bytes]"
    log: Path
    ask: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

    @property
    def payload(self) -> bytes:
        headers = (("x-api-key", self.key.plain.reveal()), ("content-type", "application/json"))
        body = b'{"model":"acme/one","messages":[]}'
        return to_check(AuthRequest("POST", "/v1/chat/completions", headers, body))

    async def check(self) -> CheckResponse:
        return CheckResponse.FromString(await self.ask(self.payload))


@pytest.fixture
async def running(
    database: Database, redis_url: str, socket: str, channel: grpc.aio.Channel, tmp_path: Path
) -> AsyncIterator[Running]:
    key = await furnish(database)
    master_key = tmp_path / "master.key"
    master_key.write_text(MASTER_KEY.reveal().hex())
    health = str(Path(socket.removeprefix("unix:")).with_name("h.sock"))
    environment = {
        **os.environ,
        "TOLLKEEPER_DATABASE_URL": database.service_dsn,
        "TOLLKEEPER_REDIS_URL": redis_url,
        "TOLLKEEPER_MASTER_KEY_FILE": str(master_key),
        "TOLLKEEPER_AUTHZ_LISTEN": socket,
        "TOLLKEEPER_AUTHZ_HEALTH_LISTEN": f"unix:{health}",
        "TOLLKEEPER_AUTHZ_LOG_LEVEL": "debug",
    }
    books = await asyncpg.connect(database.owner_dsn)
    connector = aiohttp.UnixConnector(health)
    with process_running(environment, tmp_path / "log") as process:
        async with aiohttp.ClientSession(connector=connector) as http:
            await wait_until_ready(http)
            yield Running(key, books, http, process, tmp_path / "log", check_method(channel))
    await books.close()


async def test_a_check_is_allowed_under_a_committed_hold(running: Running) -> None:
    told = await running.check()
    fields = told.dynamic_metadata.fields
    held = await running.books.fetchrow("SELECT id, account_id, state FROM holds")
    assert held is not None
    assert (held["account_id"], held["state"]) == ("u", "open")
    assert fields["hold_id"].string_value == held["id"].hex
    assert fields["account_id"].string_value == "u"


async def test_a_revoked_key_gets_no_hold_at_once(running: Running) -> None:
    await running.check()
    await running.books.execute("UPDATE credentials SET revoked_at = now()")
    refused = await running.check()
    assert json.loads(refused.denied_response.body)["error"]["code"] == "invalid_api_key"
    assert await running.books.fetchval("SELECT count(*) FROM holds") == 1


async def test_a_client_that_leaves_during_the_hold_leaves_none_open(
    running: Running, database: Database
) -> None:
    async def is_given_up() -> bool:
        async with running.http.get("http://authz/metrics") as answer:
            return "\ntollkeeper_authz_checks_in_flight 0.0\n" in await answer.text()

    async def is_caught() -> object:
        async with locked(database.owner_dsn, "SELECT 1 FROM accounts FOR UPDATE"):
            call = running.ask(running.payload)
            await until(lambda: is_lock_awaited(running.books), "the check waits for the account")
            call.cancel()
            await until(is_given_up, "authz has given the check up")
        return await running.books.fetchval("SELECT count(*) > 0 FROM ended_holds")

    async def is_none_open() -> object:
        return await running.books.fetchval("SELECT count(*) = 0 FROM holds")

    # authz waits for a lock for a second only, and where that is over there is no hold to take
    # back. The hold appears and ends in the background; only the books can tell when.
    await until(is_caught, "a hold was placed and ended")
    await until(is_none_open, "no hold is open")
    ended = await running.books.fetch("SELECT state, reason FROM ended_holds")
    assert {tuple(one) for one in ended} == {("released", "taken_back")}
    assert await running.books.fetchval("SELECT held_picos FROM accounts") == 0


async def test_leaves_cleanly_and_tells_no_secret(running: Running) -> None:
    await running.check()
    async with running.http.get("http://authz/metrics") as answer:
        counted = await answer.text()
    assert 'tollkeeper_authz_decisions_total{code="ok",outcome="allow"} 1.0' in counted
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.process.wait, 10) == 0
    written = running.log.read_text()
    assert '"event": "check_allowed"' in written
    for secret in (running.key.plain.reveal(), "planted", MASTER_KEY.reveal().hex()):
        assert secret not in written + counted


def test_says_which_settings_are_missing() -> None:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "authz"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 2
    assert "TOLLKEEPER_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
