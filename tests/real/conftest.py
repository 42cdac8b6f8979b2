"""The books, on a real Postgres, as the service role."""

from collections.abc import AsyncIterator
from typing import cast

import asyncpg
import pytest
import pytest_asyncio

from meter.history import month_store
from meter.holds import hold_store
from meter.postgres import pool
from meter.postgres.pool import KEYED_SESSION, open_pool
from tests.books import Books
from tests.meter_api import MeterApi, admit_operator, meter_api
from tests.patience import WAIT_S
from tests.servers import Database


@pytest.fixture(autouse=True)
def _patient_pools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pools wait as long as a busy machine takes: a server that is well is never "away".

    A test of what happens when a lock is not given in time has the mark `lock_timeouts`.
    """
    for name in (
        "CONNECT_TIMEOUT_S",
        "ACQUIRE_TIMEOUT_S",
        "COMMAND_TIMEOUT_S",
        "IDLE_IN_TRANSACTION_S",
    ):
        monkeypatch.setattr(pool, name, WAIT_S)
    monkeypatch.setattr(hold_store, "DRAIN_TIMEOUT_S", WAIT_S)
    if request.node.get_closest_marker("lock_timeouts") is None:
        monkeypatch.setattr(pool, "LOCK_TIMEOUT_S", WAIT_S)
        monkeypatch.setattr(month_store, "LOCK_TIMEOUT_MS", int(WAIT_S * 1000))
        session = cast("dict[str, str]", KEYED_SESSION)
        monkeypatch.setitem(session, "lock_timeout", str(int(WAIT_S * 1000)))


@pytest_asyncio.fixture
async def books(database: Database) -> AsyncIterator[Books]:
    """A fresh database with one priced model."""
    opened_pool = await open_pool(database.service_dsn, 8, KEYED_SESSION)
    opened = await Books.open(opened_pool)
    yield opened
    await opened.holds.close()
    await opened_pool.close()


@pytest_asyncio.fixture
async def owner(database: Database) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection of the role that owns the tables of that database."""
    connection = await asyncpg.connect(database.owner_dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def api(books: Books) -> AsyncIterator[MeterApi]:
    """The meter API on those books, with an operator."""
    await admit_operator(books.pool)
    async with meter_api(books.pool) as client:
        yield client
