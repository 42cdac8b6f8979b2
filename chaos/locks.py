"""Locks in Postgres that last exactly as long as a test or a fault wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg import Connection, Record

# Postgres ends a session that was idle in a transaction for a minute (the stack's servers say so).
# What goes on inside the block may take longer than that on a slow machine.
_UNLIMITED: Final = {"idle_in_transaction_session_timeout": "0", "statement_timeout": "0"}


@asynccontextmanager
async def locked(
    dsn: str, statement: str, *arguments: object, connect_timeout_s: float = 60.0
) -> AsyncIterator["Connection[Record]"]:
    """Run a statement in a transaction that stays open, with its locks, until the block ends.

    As a person does who forgets a session. The transaction is committed. Gives its connection.
    """
    connection = await asyncpg.connect(dsn, timeout=connect_timeout_s, server_settings=_UNLIMITED)
    try:
        async with connection.transaction():
            await connection.execute(statement, *arguments)
            yield connection
    finally:
        await connection.close(timeout=connect_timeout_s)
