"""The books, on a real Postgres, as the service role."""

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from meter.postgres.pool import KEYED_SESSION, open_pool
from tests.books import Books
from tests.meter_api import MeterApi, admit_operator, meter_api
from tests.servers import Database


@pytest_asyncio.fixture
async def books(database: Database) -> AsyncIterator[Books]:
    """A fresh database with one priced model."""
    pool = await open_pool(database.service_dsn, 8, KEYED_SESSION)
    opened = await Books.open(pool)
    yield opened
    await opened.holds.close()
    await pool.close()


@pytest_asyncio.fixture
async def owner(database: Database) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Who owns the tables of that database."""
    connection = await asyncpg.connect(database.owner_dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def api(books: Books) -> AsyncIterator[MeterApi]:
    """The meter API on those books, with an operator."""
    await admit_operator(books.pool)
    async with meter_api(books.pool) as client:
        yield client
