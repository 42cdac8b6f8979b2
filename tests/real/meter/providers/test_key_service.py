"""The key of a provider: tried before it is stored, and watched while it is used."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from meter.errors import ProviderUnavailable
from meter.providers.key_refusal import KeyRefusal
from meter.providers.key_service import (
    RECOVERED_AFTER_S,
    RECOVERED_REQUESTS,
    REFUSAL_STANDS_S,
    SERVED,
    KeyNotTried,
    KeyRefused,
    ProviderKeyService,
    refused_gauge,
)
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.openrouter.provider import OPENROUTER
from meter.sealing import MasterKey, SecretText
from tests.books import Books
from tests.meter_api import ADMIN, admit_operator, meter_api

KEY = SecretText("sk-or-v1-a-key-of-the-tests")
OTHER = SecretText("sk-or-v1-another-key-of-the-tests")
LATER = datetime.now(UTC) + timedelta(hours=1)
UNKNOWN = KeyRefusal(401, "the key is unknown, disabled or revoked")


@dataclass
class Provider:
    """A provider that answers GET /key as it is told."""

    url: str = ""
    status: int = 200
    members: dict[str, object] = field(
        default_factory=lambda: {"usage": 1, "limit_remaining": None}
    )
    presented: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.presented.append(request.headers["authorization"])
        return web.json_response({"data": self.members}, status=self.status)


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    application = web.Application()
    application.add_routes([web.get("/api/v1/key", provider.answer)])
    async with TestServer(application) as server:
        provider.url = str(server.make_url("/api/v1"))
        yield provider


@dataclass
class Setup:
    """Two meters on one database, and the provider."""

    provider: Provider
    keys: PostgresProviderKeys
    books: Books
    first: ProviderKeyService
    second: ProviderKeyService
    registry: CollectorRegistry

    async def refusal(self) -> KeyRefusal | None:
        stored = await self.keys.find_key(OPENROUTER.id, SYSTEM_OWNER)
        assert stored is not None
        return stored.refusal

    async def check(self, *services: ProviderKeyService) -> None:
        async with aiohttp.ClientSession() as session:
            for service in services or (self.first, self.second):
                await service.check(session)

    async def let_refusals_age(self, seconds: float = REFUSAL_STANDS_S) -> None:
        await self.books.pool.execute(
            "UPDATE provider_keys SET refused_at = refused_at - make_interval(secs => $1)",
            seconds,
        )


@pytest.fixture
def setup(books: Books, provider: Provider) -> Setup:
    keys = PostgresProviderKeys(books.pool, MasterKey(b"m" * 32))
    asked, registry = OPENROUTER.at(provider.url), CollectorRegistry()
    first = ProviderKeyService(keys, asked, refused_gauge(registry))
    second = ProviderKeyService(keys, asked, refused_gauge(CollectorRegistry()))
    return Setup(provider, keys, books, first, second, registry)


async def test_a_key_is_stored_once_the_provider_accepts_it(setup: Setup) -> None:
    assert await setup.first.set_key(KEY, is_forced=False) == 1
    assert setup.provider.presented == [f"Bearer {KEY.reveal()}"]


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_is_stored_only_when_forced(setup: Setup, status: int) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    setup.provider.status = status
    with pytest.raises(KeyRefused, match=str(status)) as refused:
        await setup.first.set_key(OTHER, is_forced=False)
    assert OTHER.reveal() not in str(refused.value)
    stored = await setup.keys.find_key(OPENROUTER.id, SYSTEM_OWNER)
    assert stored is not None
    assert stored.plain.reveal() == KEY.reveal()
    assert await setup.first.set_key(OTHER, is_forced=True) == 2


@pytest.mark.parametrize("left", [0, -1, 0.0])
async def test_a_key_whose_own_limit_is_used_up_is_refused(setup: Setup, left: float) -> None:
    setup.provider.members = {"usage": 5, "limit_remaining": left}
    with pytest.raises(KeyRefused, match="402"):
        await setup.first.set_key(KEY, is_forced=False)


@pytest.mark.parametrize("status", [500, 503, 302, 404])
async def test_a_key_that_cannot_be_tried_is_not_stored(setup: Setup, status: int) -> None:
    setup.provider.status = status
    with pytest.raises(KeyNotTried, match="--force"):
        await setup.first.set_key(KEY, is_forced=False)
    assert await setup.keys.find_key(OPENROUTER.id, SYSTEM_OWNER) is None


async def test_nothing_is_asked_while_no_key_is_set(setup: Setup) -> None:
    await setup.check()
    assert not setup.provider.presented
    assert setup.first.refusal is None


async def test_a_refusal_shows_everywhere_and_a_new_key_ends_it(setup: Setup) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    setup.provider.status = 401
    await setup.check(setup.first)
    assert await setup.refusal() == UNKNOWN
    assert setup.first.refusal == UNKNOWN
    name, labels = "tollkeeper_provider_key_refused", {"provider": OPENROUTER.id}
    assert setup.registry.get_sample_value(name, labels) == 1
    # The other meter is told by the database, although its own question is answered well.
    setup.provider.status = 200
    await setup.check(setup.second)
    assert setup.second.refusal == UNKNOWN

    await setup.first.set_key(OTHER, is_forced=False)
    assert await setup.refusal() is None
    await setup.check()
    assert setup.first.refusal is None
    assert setup.registry.get_sample_value(name, labels) == 0


async def test_refused_requests_show_although_the_key_is_known(setup: Setup) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    setup.first.note_request(402, LATER)
    await setup.check()
    assert await setup.refusal() == KeyRefusal(402, "requests were refused")
    await setup.check()
    assert setup.second.refusal == KeyRefusal(402, "requests were refused")
    await setup.let_refusals_age()
    await setup.check()
    assert await setup.refusal() is None
    assert setup.first.refusal is None
    assert setup.second.refusal is None


async def test_a_refusal_ends_sooner_where_requests_are_served_again(setup: Setup) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    for _ in range(RECOVERED_REQUESTS):
        setup.first.note_request(SERVED, datetime.now(UTC) - timedelta(days=1))
    setup.first.note_request(402, LATER)
    await setup.check()
    await setup.let_refusals_age(RECOVERED_AFTER_S)
    await setup.check()
    assert await setup.refusal() is not None  # those were served before it

    for _ in range(RECOVERED_REQUESTS):
        setup.first.note_request(SERVED, LATER)
    setup.provider.status = 401
    await setup.check(setup.first)
    assert await setup.refusal() == UNKNOWN  # the provider does not accept the key

    setup.provider.status = 200
    await setup.check()
    assert await setup.refusal() == UNKNOWN  # and has done so only a moment ago
    await setup.let_refusals_age(RECOVERED_AFTER_S)
    await setup.check(setup.second)
    assert await setup.refusal() == UNKNOWN  # this meter has seen no request
    await setup.check()
    assert await setup.refusal() is None
    assert setup.first.refusal is None
    assert setup.second.refusal is None


async def test_the_same_key_set_again_ends_a_refusal(setup: Setup) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    setup.first.note_request(402, LATER)
    await setup.check()
    assert await setup.first.set_key(KEY, is_forced=False) == 1
    await setup.check()
    assert await setup.refusal() is None
    assert setup.first.refusal is None


async def test_refused_requests_are_noted_while_the_provider_cannot_be_asked(
    setup: Setup,
) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    setup.provider.status = 503
    setup.first.note_request(403, LATER)
    with pytest.raises(ProviderUnavailable):
        await setup.check(setup.first)
    assert await setup.refusal() == KeyRefusal(403, "requests were refused")


async def test_a_request_of_before_the_key_says_nothing_about_it(setup: Setup) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    setup.first.note_request(401, datetime.now(UTC))
    await setup.check()
    assert await setup.refusal() is None


async def test_a_late_refusal_of_a_former_key_says_nothing_about_the_new_one(setup: Setup) -> None:
    await setup.first.set_key(KEY, is_forced=False)
    await setup.first.set_key(OTHER, is_forced=False)
    await setup.keys.note_refusal(OPENROUTER.id, SYSTEM_OWNER, 1, UNKNOWN)
    assert await setup.refusal() is None


async def test_an_administrator_is_told_what_is_wrong_with_a_key(
    books: Books, provider: Provider
) -> None:
    path = f"{ADMIN}/providers/openrouter/key"
    await admit_operator(books.pool)
    async with meter_api(books.pool, provider_url=provider.url) as api:
        assert (await api.operator.put(path, json={"key": KEY.reveal()})).status_code == 204
        provider.status = 401
        refused = await api.operator.put(path, json={"key": OTHER.reveal()})
        assert (refused.status_code, refused.json()["code"]) == (422, "provider_key_refused")
        assert UNKNOWN.reason in refused.json()["detail"]
        provider.status = 500
        untried = await api.operator.put(path, json={"key": OTHER.reveal()})
        assert (untried.status_code, untried.json()["code"]) == (503, "provider_unavailable")
        await api.keys.note_refusal(OPENROUTER.id, SYSTEM_OWNER, 1, UNKNOWN)
        (listed,) = (await api.operator.get(f"{ADMIN}/providers")).json()["data"]
        assert listed["key"]["refused_status"] == 401
        assert listed["key"]["refused_reason"] == UNKNOWN.reason
        forced = {"key": OTHER.reveal(), "force": True}
        assert (await api.operator.put(path, json=forced)).status_code == 204
        (listed,) = (await api.operator.get(f"{ADMIN}/providers")).json()["data"]
        assert listed["key"]["refused_at"] is None
