"""The books, on a real Postgres, as the service role."""

from collections.abc import AsyncIterator

import pytest_asyncio

from meter.stores.postgres import open_pool
from tests.books import Books
from tests.servers import Database


@pytest_asyncio.fixture
async def books(database: Database) -> AsyncIterator[Books]:
    """A fresh database with one priced model."""
    pool = await open_pool(database.service_dsn, most_connections=8)
    yield await Books.open(pool)
    await pool.close()
