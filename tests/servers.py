"""Real Postgres and Redis for tests, started once and stopped at the end."""

import asyncio
import contextlib
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from tests.patience import WAIT_S
from tollkeeper.stack.servers import binaries, postgres, redis_server
from tollkeeper.stack.servers.privileges import run_as
from tollkeeper.stack.supervision.children import die_with_parent

POLL_INTERVAL_S = 0.02
TEMPLATE = "tollkeeper_template"
# A clone of it whose functions wait for locks as long as a busy machine takes.
PATIENT_TEMPLATE = "tollkeeper_patient_template"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh, migrated database of one test."""

    name: str
    owner_dsn: str
    service_dsn: str


def run_in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine apart from the event loop that pytest keeps in this thread."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(asyncio.run(work()))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@contextlib.contextmanager
def running(
    command: list[str],
    is_ready: Callable[[], Coroutine[Any, Any, bool]],
    log: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is ready inside the block and gone after it."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(stop_signal),
            start_new_session=True,
        )
    try:
        _wait_until(is_ready, child, log)
        yield child
    finally:
        child.send_signal(stop_signal)
        try:
            child.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_until(
    is_ready: Callable[[], Coroutine[Any, Any, bool]], child: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + WAIT_S
    while not run_in_thread(is_ready):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"server did not start:\n{log.read_text(errors='replace')}")
        time.sleep(POLL_INTERVAL_S)


@contextlib.contextmanager
def postgres_running(root: Path) -> Iterator[postgres.PostgresServer]:
    """A real Postgres with its default durability, below `root` (a short path)."""
    data = root / "postgres"
    server = postgres.PostgresServer(
        binaries.postgres_binaries(), data, root / "pg", run_as(data, "INT")
    )
    server.prepare()
    log = root / "postgres.log"
    # A test that keeps a transaction open does so for as long as it takes.
    command = [*server.command(), "-c", "idle_in_transaction_session_timeout=0"]
    with running(command, lambda: postgres.accepts(server), log, signal.SIGINT):
        yield server


@contextlib.contextmanager
def redis_running(root: Path) -> Iterator[redis_server.RedisServer]:
    """A real Redis below `root` (a short path)."""
    server = redis_server.RedisServer(binaries.redis_binary(), root / "redis.sock", root / "redis")
    server.prepare()
    log = root / "redis.log"
    with running(server.command(), lambda: redis_server.answers(server), log):
        yield server


async def make_template(server: postgres.PostgresServer) -> None:
    """A migrated database that every test's database is cloned from."""
    from meter.postgres.migrate import migrate

    await postgres.create_roles_and_database(server, TEMPLATE)
    await migrate(server.dsn(postgres.OWNER_ROLE, TEMPLATE))


async def make_patient_template(server: postgres.PostgresServer) -> None:
    """The same, whose functions wait for locks as long as a busy machine takes."""
    await _clone(server, PATIENT_TEMPLATE, TEMPLATE)
    connection = await asyncpg.connect(server.dsn(postgres.OWNER_ROLE, PATIENT_TEMPLATE))
    try:
        patient = await connection.fetch(
            "SELECT oid::regprocedure AS signature FROM pg_proc"
            " WHERE EXISTS (SELECT 1 FROM unnest(proconfig) one WHERE one LIKE 'lock_timeout=%')"
        )
        assert patient
        for function in patient:
            await connection.execute(
                f"ALTER FUNCTION {function['signature']} SET lock_timeout = '{WAIT_S:.0f}s'"
            )
    finally:
        await connection.close()


async def clone_template(server: postgres.PostgresServer, template: str = TEMPLATE) -> Database:
    """A fresh database; the template must have no connection open."""
    name = f"test_{secrets.token_hex(6)}"
    await _clone(server, name, template)
    return Database(
        name, server.dsn(postgres.OWNER_ROLE, name), server.dsn(postgres.SERVICE_ROLE, name)
    )


async def drop(server: postgres.PostgresServer, database: Database) -> None:
    """Remove a test's database, whoever is still connected."""
    await drop_named(server, database.name)


async def drop_named(server: postgres.PostgresServer, name: str) -> None:
    """The same for one that is not a clone of the template."""
    await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _clone(server: postgres.PostgresServer, name: str, template: str) -> None:
    # The other strategy writes and compresses all of it into the write-ahead log: 180 ms of CPU for
    # a database that a test makes and drops, where copying its files takes 45.
    await _execute(
        server,
        f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER "{postgres.OWNER_ROLE}"'
        " STRATEGY FILE_COPY",
    )


async def _execute(server: postgres.PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn(postgres.SUPERUSER, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def is_lock_awaited(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Return whether some session of the server waits for a lock."""
    return bool(await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))
