"""Faults of what the services lean on: Postgres without writes, Redis without memory."""

import asyncio
import contextlib
import time
from typing import Final

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chaos.locks import locked
from chaos.schedule import Fault
from chaos.stack import ChaosStack

CONNECT_TIMEOUT_S: Final = 3.0
UNDO_PATIENCE_S: Final = 60.0
UNDO_RETRY_S: Final = 0.3
_AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_REFUSE: Final = "ALTER SYSTEM SET default_transaction_read_only = on"
_ALLOW: Final = "ALTER SYSTEM RESET default_transaction_read_only"
_RELOAD: Final = "SELECT pg_reload_conf()"


async def refuse_writes(stack: ChaosStack, fault: Fault) -> None:
    """Every transaction is read-only for a while, as on a full disk or a demoted server."""
    await _try(stack, _REFUSE, _RELOAD)
    try:
        await asyncio.sleep(fault.for_s)
    finally:
        await allow_writes(stack)


async def allow_writes(stack: ChaosStack) -> None:
    """Undo it, also when Postgres was killed meanwhile. Raises TimeoutError in the end."""
    deadline = time.monotonic() + UNDO_PATIENCE_S
    while not await _try(stack, "SET default_transaction_read_only = off", _ALLOW, _RELOAD):
        if time.monotonic() > deadline:
            raise TimeoutError("Postgres could not be told to allow writes again")
        await asyncio.sleep(UNDO_RETRY_S)


async def lock_accounts(stack: ChaosStack, fault: Fault) -> None:
    """A lock that an administrator forgot: whoever moves money waits."""
    with contextlib.suppress(*_AWAY):
        lock = "LOCK TABLE accounts IN EXCLUSIVE MODE"
        async with locked(stack.dsn(), lock, connect_timeout_s=CONNECT_TIMEOUT_S):
            await asyncio.sleep(fault.for_s)


async def end_backends(stack: ChaosStack, fault: Fault) -> None:
    """Every other connection of the services is ended, in the middle of what it does."""
    await _try(
        stack,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE usename = 'tollkeeper_service' AND pid % 2 = {fault.draw % 2}",
    )


async def empty_redis(stack: ChaosStack, _: Fault) -> None:
    """FLUSHALL."""
    client = Redis(unix_socket_path=str(stack.redis_socket), socket_timeout=CONNECT_TIMEOUT_S)
    with contextlib.suppress(RedisError, OSError):
        await client.flushall()
    await client.aclose()


async def _try(stack: ChaosStack, *statements: str) -> bool:
    """Return whether Postgres did all of it. ALTER SYSTEM allows no transaction around it."""
    try:
        connection = await asyncpg.connect(stack.dsn(), timeout=CONNECT_TIMEOUT_S)
    except _AWAY:
        return False
    try:
        for statement in statements:
            await connection.execute(statement)
    except _AWAY:
        return False
    finally:
        connection.terminate()
    return True
