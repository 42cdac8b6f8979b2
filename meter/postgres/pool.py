"""The border to Postgres: pools, named queries, and what its errors mean here."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from meter.errors import RowLocked, StoreUnavailable

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record
    from asyncpg.pool import PoolConnectionProxy

# As strings, because asyncpg's classes are generic for the type checker only.
PostgresConnection: TypeAlias = "Connection[Record]"
PostgresPool: TypeAlias = "Pool[Record]"

CONNECT_TIMEOUT_S: Final = 3.0
ACQUIRE_TIMEOUT_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 10.0
# Whoever waits for a row occupies a connection: the pool's others must not run out of them.
LOCK_TIMEOUT_S: Final = 2.0
IDLE_LIFETIME_S: Final = 300.0
# Whoever is stopped between two statements of a transaction keeps its locks, the ledger's head
# among them, and everybody waits: Postgres ends the transaction then.
IDLE_IN_TRANSACTION_S: Final = 10.0

# Postgres refuses work or is away; the question was not wrong, so the same call may be tried again.
# docs/operations.md has the table of SQLSTATE classes.
_OUTAGES: Final = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
    # A migration changed a table under a cached plan; asyncpg has forgotten the plan by now.
    asyncpg.InvalidCachedStatementError,
)
# The server itself is going, or no longer takes writes: no session with it is of any use.
_SERVER_ERRORS: Final = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)
# Statements that a session prepared are not there, or somebody else's are.
_POOLER_ERRORS: Final = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
# The same session would fail again, so that it ends, and the next one may meet a better server.
_CONNECTION_ERRORS: Final = (
    *_SERVER_ERRORS,
    *_POOLER_ERRORS,
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


@cache
def queries(package: str) -> Mapping[str, str]:
    """Return the text of each named query in the folder `queries/` of a package.

    Stores look their queries up while they are imported, so a misspelt name ends the process at
    its start instead of at its first use.
    """
    folder = resources.files(package) / "queries"
    texts = {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    return MappingProxyType(texts)


@contextmanager
def store_errors() -> Iterator[None]:
    """Translate what asyncpg raises during an outage into StoreUnavailable."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise RowLocked("another transaction keeps a row locked; try again later") from error
    except _POOLER_ERRORS as error:
        raise StoreUnavailable(
            "a prepared statement is lost: a pooler before Postgres must use pool_mode = session"
        ) from error
    except _OUTAGES as error:
        raise StoreUnavailable(f"Postgres does not answer ({type(error).__name__})") from error


# For pools whose statements reach rows by key only. A plan that was cached while a table was
# empty would scan the table for ever after; and planning anew costs more than the statements do.
KEYED_SESSION: Final[Mapping[str, str]] = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    # One account that somebody keeps locked must not hold up the requests of all others.
    "lock_timeout": "1000",
}


async def open_pool(
    dsn: str, most_connections: int, session: Mapping[str, str] = MappingProxyType({})
) -> PostgresPool:
    """Make a pool that connects when first used, so that a service can start before Postgres.

    Of several hosts in `dsn` it connects to the first one that takes writes. Returned connections
    are not reset: no statement here changes the session, and the reset would cost every hold a
    second round trip.
    """
    settings = {
        "statement_timeout": str(int(COMMAND_TIMEOUT_S * 1000)),
        "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION_S * 1000)),
        "lock_timeout": str(int(LOCK_TIMEOUT_S * 1000)),
        **session,
    }
    # Statements, because pgbouncer refuses startup parameters that it does not know.
    statements = ";".join(f"SET {name} = '{value}'" for name, value in settings.items())

    async def set_up(connection: PostgresConnection) -> None:
        await connection.execute(statements, timeout=CONNECT_TIMEOUT_S)

    pool: PostgresPool = await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=most_connections,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        max_inactive_connection_lifetime=IDLE_LIFETIME_S,
        init=set_up,
        reset=_keep_session,
        target_session_attrs=None if "target_session_attrs" in dsn else SessionAttribute.read_write,
    )
    return pool


async def _keep_session(_connection: object) -> None:
    return None


async def _end_if_useless(
    pool: PostgresPool, connection: "PoolConnectionProxy[Record]", error: Exception
) -> None:
    """End a session after an error that it would give again; after some, all of the pool's."""
    if isinstance(error, _CONNECTION_ERRORS):
        # Where the server went away, the pool may have taken it back by itself.
        with suppress(asyncpg.InterfaceError):
            connection.terminate()
    if isinstance(error, _SERVER_ERRORS):
        await pool.expire_connections()


@asynccontextmanager
async def acquire(pool: PostgresPool) -> AsyncIterator[PostgresConnection]:
    """Borrow a connection; outages while waiting for it or using it become StoreUnavailable."""
    with store_errors():
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            try:
                yield connection  # type: ignore[misc]
            except Exception as error:
                await _end_if_useless(pool, connection, error)
                raise


class KeptConnection:
    """One connection that stays borrowed between uses.

    Borrowing and returning cost as much as a short statement; a hot path does both once. A
    connection that broke meanwhile is replaced before it is used. One user at a time.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._connection: PoolConnectionProxy[Record] | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[PostgresConnection]:
        """The connection; outages while getting or using it become StoreUnavailable."""
        with store_errors():
            if self._is_lost():
                await self.release()
            if self._connection is None:
                self._connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
            try:
                yield self._connection  # type: ignore[misc]
            except Exception as error:
                await _end_if_useless(self._pool, self._connection, error)
                raise

    def _is_lost(self) -> bool:
        if self._connection is None:
            return False
        try:
            return self._connection.is_closed()
        except asyncpg.InterfaceError:
            # The pool took it back by itself when the server went away.
            return True

    async def release(self) -> None:
        """Give the connection back; the pool closes it where it is broken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)


async def is_reachable(pool: PostgresPool) -> bool:
    """Return whether Postgres answers a trivial query now."""
    try:
        async with acquire(pool) as connection:
            await connection.execute("SELECT 1")
    except StoreUnavailable:
        return False
    return True
