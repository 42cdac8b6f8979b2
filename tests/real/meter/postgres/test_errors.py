"""Errors of Postgres by SQLSTATE: how each is understood, and whether its session may stay."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from meter.errors import RowLocked, StoreUnavailable
from meter.postgres.pool import KeptConnection, PostgresPool, acquire, open_pool
from tests.books import Books
from tests.servers import Database

ONE_SESSION = 1


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[PostgresPool]:
    """A pool with one session, so that its end can be seen."""
    opened = await open_pool(database.service_dsn, ONE_SESSION)
    yield opened
    await opened.close()


async def backend(pool: PostgresPool) -> int:
    """The server's process behind the session."""
    async with acquire(pool) as connection:
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


async def fail(pool: PostgresPool, sqlstate: str) -> None:
    """Let Postgres raise an error with this SQLSTATE."""
    async with acquire(pool) as connection, connection.transaction():
        await connection.execute(
            f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"
        )


@pytest.mark.parametrize(
    ("sqlstate", "error", "session_stays"),
    [
        ("08006", StoreUnavailable, False),  # connection_failure
        ("25006", StoreUnavailable, False),  # read_only_sql_transaction
        ("25P03", StoreUnavailable, False),  # idle_in_transaction_session_timeout
        ("26000", StoreUnavailable, False),  # invalid_sql_statement_name
        ("42P05", StoreUnavailable, False),  # duplicate_prepared_statement
        ("57P01", StoreUnavailable, False),  # admin_shutdown
        ("57P02", StoreUnavailable, False),  # crash_shutdown
        ("57P03", StoreUnavailable, False),  # cannot_connect_now
        ("57P05", StoreUnavailable, False),  # idle_session_timeout
        ("57014", StoreUnavailable, True),  # query_canceled
        ("40001", StoreUnavailable, True),  # serialization_failure
        ("40P01", StoreUnavailable, True),  # deadlock_detected
        ("53100", StoreUnavailable, True),  # disk_full
        ("53200", StoreUnavailable, True),  # out_of_memory
        ("53300", StoreUnavailable, True),  # too_many_connections
        ("58030", StoreUnavailable, True),  # io_error
        ("55P03", RowLocked, True),  # lock_not_available
        ("23505", asyncpg.UniqueViolationError, True),
        ("42501", asyncpg.InsufficientPrivilegeError, True),
        ("XX001", asyncpg.PostgresError, True),  # data_corrupted
    ],
)
async def test_each_class_of_errors_has_its_meaning(
    pool: PostgresPool, sqlstate: str, error: type[Exception], session_stays: bool
) -> None:
    before = await backend(pool)
    with pytest.raises(error) as raised:
        await fail(pool, sqlstate)
    assert type(raised.value) is error or error is asyncpg.PostgresError
    assert (await backend(pool) == before) is session_stays


async def test_a_demoted_server_is_left_by_all_sessions(database: Database) -> None:
    pool = await open_pool(database.service_dsn, 3)
    async with pool.acquire() as one, pool.acquire() as two, pool.acquire() as three:
        stale = {
            await each.fetchval("SELECT pg_backend_pid() FROM set_config($1, 'on', false)", name)
            for each in (one, two, three)
            for name in ("default_transaction_read_only",)
        }
    with pytest.raises(StoreUnavailable):
        async with acquire(pool) as connection:
            await connection.execute("INSERT INTO undecided_requests VALUES (gen_random_uuid())")
    for _ in range(3):
        async with acquire(pool) as connection:
            await connection.execute("INSERT INTO undecided_requests VALUES (gen_random_uuid())")
            assert await connection.fetchval("SELECT pg_backend_pid()") not in stale
    await pool.close()


async def test_a_kept_connection_to_a_demoted_server_is_replaced(books: Books) -> None:
    kept = KeptConnection(books.pool)
    async with kept.use() as connection:
        await connection.execute("SET default_transaction_read_only = on")
    write = "INSERT INTO undecided_requests VALUES (gen_random_uuid())"
    with pytest.raises(StoreUnavailable):
        async with kept.use() as connection:
            await connection.execute(write)
    async with kept.use() as connection:
        await connection.execute(write)
    await kept.release()


async def test_a_migration_under_a_cached_plan_is_tried_again(
    pool: PostgresPool, database: Database, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    query = "SELECT * FROM plans"
    async with acquire(pool) as connection, connection.transaction():
        await connection.fetch(query)
    await owner.execute("ALTER TABLE plans ADD COLUMN later integer")
    with pytest.raises(StoreUnavailable):
        async with acquire(pool) as connection, connection.transaction():
            await connection.fetch(query)
    async with acquire(pool) as connection, connection.transaction():
        assert "later" in (await connection.fetch(query))[0]


async def test_the_first_of_several_hosts_that_takes_writes_is_used(database: Database) -> None:
    socket = database.service_dsn.partition("host=")[2].partition("&")[0]
    assert socket
    several = database.service_dsn.replace(f"host={socket}", f"host=/nonexistent,{socket}")
    pool = await open_pool(several, ONE_SESSION)
    assert await backend(pool)
    await pool.close()


async def test_a_server_that_takes_no_writes_is_not_connected_to(
    database: Database, pool: PostgresPool, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    with pytest.raises(StoreUnavailable):
        await backend(pool)
    await owner.execute("SET default_transaction_read_only = off")
    await owner.execute(f'ALTER DATABASE "{database.name}" RESET default_transaction_read_only')
    assert await backend(pool)
