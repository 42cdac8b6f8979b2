"""The provider's total of the key in use, with the version of that key."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from meter.errors import ProviderUnavailable
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.key_totals import KeyTotals
from meter.providers.openrouter.provider import OPENROUTER
from meter.reconciliation.drift import ProviderTotal
from meter.sealing import MasterKey, SecretText
from tests.books import Books

FIRST = "sk-or-v1-first-key-of-the-tests"
SECOND = "sk-or-v1-second-key-of-the-tests"


@dataclass
class Provider:
    """A provider that has billed 12.5 USD to whoever asks; it may change our key meanwhile."""

    keys: PostgresProviderKeys
    url: str = ""
    presented: list[str] = field(default_factory=list)
    changes_key: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        """GET /key."""
        self.presented.append(request.headers["authorization"])
        if self.changes_key:
            await self.keys.set_key(OPENROUTER.id, SYSTEM_OWNER, SecretText(SECOND))
        return web.json_response({"data": {"usage": 12.5}})


@pytest_asyncio.fixture
async def provider(books: Books) -> AsyncIterator[Provider]:
    """That provider, listening."""
    provider = Provider(PostgresProviderKeys(books.pool, MasterKey(b"m" * 32)))
    application = web.Application()
    application.add_routes([web.get("/api/v1/key", provider.answer)])
    async with TestServer(application) as server:
        provider.url = str(server.make_url("/api/v1/"))
        yield provider


async def test_the_total_is_that_of_the_key_in_use(provider: Provider) -> None:
    totals = KeyTotals(provider.keys, OPENROUTER.at(provider.url))
    assert await totals.find_total() is None
    for version, key in ((1, FIRST), (2, SECOND)):
        await provider.keys.set_key(OPENROUTER.id, SYSTEM_OWNER, SecretText(key))
        assert await totals.find_total() == ProviderTotal(
            OPENROUTER.id, version, 12_500_000_000_000
        )
    assert provider.presented == [f"Bearer {FIRST}", f"Bearer {SECOND}"]


async def test_a_total_of_a_key_that_is_being_changed_is_none(provider: Provider) -> None:
    await provider.keys.set_key(OPENROUTER.id, SYSTEM_OWNER, SecretText(FIRST))
    provider.changes_key = True
    with pytest.raises(ProviderUnavailable):
        await KeyTotals(provider.keys, OPENROUTER.at(provider.url)).find_total()
