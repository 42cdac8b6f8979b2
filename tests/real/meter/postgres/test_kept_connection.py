"""A connection that stays borrowed is replaced when the server ends it."""

import pytest

from meter.errors import StoreUnavailable
from meter.postgres.pool import KeptConnection
from tests.books import Books


async def backend(kept: KeptConnection) -> int:
    """The server's process behind the connection."""
    async with kept.use() as connection:
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


async def test_it_stays_between_uses(books: Books) -> None:
    kept = KeptConnection(books.pool)
    assert await backend(kept) == await backend(kept)
    await kept.release()


@pytest.mark.parametrize("is_idle", [True, False], ids=["while idle", "in use"])
async def test_one_that_the_server_ended_is_replaced(books: Books, is_idle: bool) -> None:
    kept = KeptConnection(books.pool)
    before = await backend(kept)
    if is_idle:
        await books.pool.fetchval("SELECT pg_terminate_backend($1, 5000)", before)
    else:
        with pytest.raises(StoreUnavailable):
            async with kept.use() as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await backend(kept) not in (None, before)
    await kept.release()
    assert books.pool.get_idle_size() == books.pool.get_size()
