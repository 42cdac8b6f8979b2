"""Providers as rows: made, synced, priced, checked and deleted, against a real server."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx2
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.doubt_store import DoubtStore
from meter.pricing.prices import Offer
from meter.process.background import background
from meter.providers.base_urls import BaseUrls
from meter.providers.catalogue_sync import CatalogueSync, SyncMetrics
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.provider_store import ProviderStore
from meter.providers.providers import Providers
from meter.sealing import MasterKey
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import MODEL, NEVER_REACHED, Books, observed, offered
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api
from tests.patience import until

PATH = f"{ADMIN}/providers"
KEY = "sk-a-key-of-the-tests"


@dataclass
class Server:
    """A server in the shape of OpenAI that lists these models, to this key only."""

    url: str = ""
    names: list[str] = field(default_factory=list)
    status: int = 200
    key: str | None = None

    async def list_models(self, request: web.Request) -> web.Response:
        """Answer GET /models."""
        presented = request.headers.get("authorization")
        if self.key is not None and presented != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        data = [{"id": name, "object": "model", "max_model_len": 8_192} for name in self.names]
        return web.json_response({"object": "list", "data": data}, status=self.status)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.add_routes([web.get("/v1/models", server.list_models)])
    async with TestServer(application) as running:
        server.url = f"http://127.0.0.1:{running.port}/v1"
        yield server


@pytest_asyncio.fixture
async def api(books: Books) -> AsyncIterator[MeterApi]:
    await admit_operator(books.pool)
    async with meter_api(books.pool) as api:
        yield api


async def make(api: MeterApi, **members: Any) -> dict[str, Any]:
    answer = await api.operator.post(PATH, json=members)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def sync(books: Books, provider_id: str) -> None:
    """Sync a provider once, as the task of a meter does."""
    catalogue = PostgresCatalogue(books.pool)
    found = {one.id: one for one in await ProviderStore(books.pool).list_all()}
    synced = CatalogueSync(
        catalogue,
        DoubtStore(books.pool),
        PostgresProviderKeys(books.pool, MasterKey(b"m" * 32)),
        found[provider_id],
        60.0,
        SyncMetrics(CollectorRegistry()),
    )
    async with aiohttp.ClientSession() as session:
        await synced.sync(session)


async def offers(books: Books) -> dict[str, Offer]:
    return {one.model.id: one for one in await PostgresCatalogue(books.pool).load_offers()}


async def import_prices(
    api: MeterApi, provider: str, *prices: dict[str, str], allow_zero: bool = False
) -> httpx2.Response:
    body = {"prices": list(prices), "allow_zero": allow_zero}
    return await api.operator.post(f"{PATH}/{provider}/prices", json=body)


def price(model: str, prompt: str, completion: str, **more: str) -> dict[str, str]:
    return {
        "model": model,
        "prompt_usd_per_million": prompt,
        "completion_usd_per_million": completion,
        **more,
    }


async def test_a_model_that_openrouter_lists_has_its_price(
    books: Books, api: MeterApi, server: Server
) -> None:
    vendor, _, name = MODEL.partition("/")
    server.names = [name, "unheard-of"]
    made = await make(api, name="direct", dialect="openai", base_url=server.url)
    assert made["model_prefix"] == "openai/" == f"{vendor}/"
    await sync(books, "direct")
    found = await offers(books)
    assert list(found) == [MODEL]
    one, known = found[MODEL], offered()
    assert (one.provider, one.upstream_name) == ("direct", name)
    assert one.model.price.provider == "direct"
    assert one.model.price.prompt_picos == known.prompt_picos
    assert one.model.context_length == 8_192
    # The default path keeps its own price, and its own listing of the model.
    default = (await PostgresCatalogue(books.pool).load_models())[MODEL]
    assert default.price.provider == "openrouter"
    assert default.price.id != one.model.price.id
    withheld = await api.operator.get(f"{ADMIN}/catalogue/withheld")
    (row,) = withheld.json()["data"]
    assert (row["provider"], row["model"]) == ("direct", "openai/unheard-of")
    assert "prices import FILE --provider direct" in row["reason"]


async def test_an_administrators_price_precedes_and_is_dated(
    books: Books, api: MeterApi, server: Server
) -> None:
    server.names = ["llama"]
    await make(api, name="vllm", dialect="openai_compatible", base_url=server.url)
    answer = await import_prices(
        api,
        "vllm",
        price("llama", "0.15", "0.6", cache_read_usd_per_million="0.015"),
        price("llama", "0.2", "0.8", effective_from="2099-01-01T00:00:00Z"),
    )
    assert answer.json() == {"new": 2, "unchanged": 0}
    await sync(books, "vllm")
    one = (await offers(books))["vllm/llama"]
    assert one.upstream_name == "llama"
    assert (one.model.price.prompt_picos, one.model.price.completion_picos) == (150_000, 600_000)
    assert one.model.price.cache_read_picos == 15_000
    again = await import_prices(
        api, "vllm", price("vllm/llama", "0.15", "0.6", cache_read_usd_per_million="0.015")
    )
    assert again.json() == {"new": 0, "unchanged": 1}
    listed = (await api.operator.get(f"{PATH}/vllm/prices")).json()["data"]
    assert [(row["model"], row["origin"]) for row in listed] == [("vllm/llama", "administrator")]
    assert listed[0]["prompt_usd_per_million"] == "0.15"
    # A model that only another provider has is listed for clients.
    models = (await api.anybody.get("/v1/models")).json()["data"]
    assert {"vllm/llama", MODEL} <= {model["id"] for model in models}


async def test_a_price_of_nothing_is_stored_only_when_that_is_said(
    books: Books, api: MeterApi, server: Server
) -> None:
    server.names = ["llama"]
    await make(api, name="vllm", dialect="openai_compatible", base_url=server.url)
    refused = await import_prices(api, "vllm", price("llama", "0", "0"))
    assert refused.status_code == 422
    assert "--allow-zero" in refused.json()["detail"]
    assert (await import_prices(api, "vllm", price("llama", "0", "0"), allow_zero=True)).is_success
    await sync(books, "vllm")
    assert (await offers(books))["vllm/llama"].model.price.is_free


async def test_a_free_provider_needs_no_prices(books: Books, api: MeterApi, server: Server) -> None:
    server.names = ["llama", "qwen"]
    await make(api, name="ollama", dialect="openai_compatible", base_url=server.url, is_free=True)
    await sync(books, "ollama")
    found = await offers(books)
    assert set(found) == {"ollama/llama", "ollama/qwen"}
    assert all(one.model.price.is_free for one in found.values())
    # No longer free: without prices of its own it offers nothing.
    changed = await api.operator.patch(f"{PATH}/ollama", json={"is_free": False})
    assert changed.json()["is_free"] is False
    with pytest.raises(Exception, match="none has a price"):
        await sync(books, "ollama")
    assert await offers(books) == {}


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ([price("llama", "1", "2"), price("llama", "1", "2")], "two prices of vllm/llama"),
        ([price("llama", "1", "2", effective_from="2020-01-01T00:00:00Z")], "in the past"),
        ([price("llama", "1.1234567", "2")], "at most 6 decimals"),
    ],
)
async def test_a_price_list_with_a_fault_is_refused_whole(
    api: MeterApi, server: Server, listed: list[dict[str, str]], why: str
) -> None:
    await make(api, name="vllm", dialect="openai_compatible", base_url=server.url)
    answer = await import_prices(api, "vllm", price("other", "1", "1"), *listed)
    assert answer.status_code == 422
    assert why in answer.text
    assert (await api.operator.get(f"{PATH}/vllm/prices")).json()["data"] == []


async def test_a_planned_price_is_never_changed(api: MeterApi, server: Server) -> None:
    await make(api, name="vllm", dialect="openai_compatible", base_url=server.url)
    at = "2099-01-01T00:00:00Z"
    assert (await import_prices(api, "vllm", price("a", "1", "2", effective_from=at))).is_success
    same = await import_prices(api, "vllm", price("a", "1", "2", effective_from=at))
    assert same.json() == {"new": 0, "unchanged": 1}
    other = await import_prices(api, "vllm", price("a", "1", "3", effective_from=at))
    assert other.status_code == 409
    assert "never changed" in other.json()["detail"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1/v1", "TOLLKEEPER_PLAIN_HTTP_PROVIDERS"),
        ("http://vllm.internal/v1", "TOLLKEEPER_PLAIN_HTTP_PROVIDERS"),
        ("https://user:word@api.example.com/v1", "no user"),
        ("https://api.example.com/v1?key=1", "no user, query"),
        ("https://api.example.com/v1#a", "fragment"),
        ("https://api.example.com/a/../b", "segment"),
        ("https://api.example.com/a//b", "segment"),
        ("ftp://api.example.com", "https://"),
        ("https://", "https://"),
        ("https://api.example.com:99999", "URL"),
    ],
)
async def test_a_base_url_is_checked(api: MeterApi, url: str, why: str) -> None:
    body = {"name": "vllm", "dialect": "openai_compatible", "base_url": url}
    answer = await api.operator.post(PATH, json=body)
    assert answer.status_code == 422
    assert why in answer.text
    assert "word" not in answer.text.replace("password", "")


def test_plain_http_goes_to_the_hosts_and_networks_of_the_setting_only() -> None:
    urls = BaseUrls.from_setting("127.0.0.0/8, ::1/128, VLLM.internal")
    for url in ("http://127.0.0.1:8000/v1", "http://[::1]:8000/v1/", "http://vllm.internal/v1"):
        assert urls.require(url) == url.rstrip("/")
    for url in (
        "http://vllm.internal.example.com/v1",
        "http://128.0.0.1/v1",
        "http://localhost/v1",
    ):
        with pytest.raises(Exception, match="plain http"):
            urls.require(url)


async def test_stored_keys_of_accounts_go_to_no_other_address(
    api: MeterApi, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(api, name="direct", dialect="openai", base_url=server.url)
    await api.user("ada")
    ada = (await api.key("ada", scopes=["usage:read", "keys:write"]))["key"]

    async def store() -> httpx2.Response:
        return await api.as_key(ada, "/api/v1/provider-keys/direct", "PUT", {"key": KEY})

    async def move(base_url: str) -> httpx2.Response:
        return await api.operator.patch(f"{PATH}/direct", json={"base_url": base_url})

    assert (await store()).status_code == 204
    refused = await move("http://127.0.0.1:9/v1")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "(1 in all)" in refused.json()["detail"]
    # The same address is no change, and other terms may be changed.
    assert (await move(server.url)).status_code == 200
    path = f"{ADMIN}/users/ada/provider-keys/direct"
    assert (await api.operator.delete(path)).status_code == 204

    async def accepted(*_: object, **__: object) -> None:
        # Between the trial of a key and its storing.
        assert (await move("http://127.0.0.1:9/v1")).status_code == 200

    monkeypatch.setattr("meter.providers.own_keys.try_key", accepted)
    late = await store()
    assert (late.status_code, late.json()["code"]) == (503, "provider_unavailable")
    assert "changed meanwhile" in late.json()["detail"]
    assert (await api.as_key(ada, "/api/v1/provider-keys")).json()["data"] == []


async def test_a_provider_is_checked_by_a_free_call(api: MeterApi, server: Server) -> None:
    server.key, server.names = KEY, ["gpt-4o"]
    await make(api, name="direct", dialect="openai", base_url=server.url)

    async def problem() -> str | None:
        answer = await api.operator.post(f"{PATH}/direct/check")
        assert answer.json()["ok"] is (answer.json()["problem"] is None)
        found: str | None = answer.json()["problem"]
        return found

    assert "set-key direct" in (await problem() or "")
    wrong = await api.operator.put(f"{PATH}/direct/key", json={"key": "sk-wrong"})
    assert wrong.status_code == 422
    assert wrong.json()["code"] == "provider_key_refused"
    assert (await api.operator.put(f"{PATH}/direct/key", json={"key": KEY})).status_code == 204
    assert await problem() is None
    server.key = "another"
    assert "401" in (await problem() or "")
    server.key, server.status = None, 404
    assert "no such path below the base URL" in (await problem() or "")
    server.status, server.names = 200, []
    assert "lists no model" in (await problem() or "")


async def test_a_disabled_provider_offers_nothing(
    books: Books, api: MeterApi, server: Server
) -> None:
    server.names = ["llama"]
    await make(api, name="vllm", dialect="openai_compatible", base_url=server.url, is_free=True)
    await sync(books, "vllm")
    disabled = await api.operator.post(f"{PATH}/vllm/disable")
    assert disabled.json()["state"] == "disabled"
    assert await offers(books) == {}
    models = (await api.anybody.get("/v1/models")).json()["data"]
    assert "vllm/llama" not in {model["id"] for model in models}
    await api.operator.post(f"{PATH}/vllm/enable")
    assert set(await offers(books)) == {"vllm/llama"}
    actions = [
        row["action"] for row in (await api.operator.get(f"{ADMIN}/audit-log")).json()["data"]
    ]
    assert actions == ["provider.enabled", "provider.disabled", "provider.created"]


async def test_a_provider_that_an_open_request_needs_is_not_deleted(
    books: Books, api: MeterApi, server: Server
) -> None:
    server.names = [MODEL.partition("/")[2]]
    await make(api, name="direct", dialect="openai", base_url=server.url)
    await sync(books, "direct")
    books.price_id = (await offers(books))[MODEL].model.price.id
    hold_id = await books.held(await books.payer("alice", 10**12), 10**9)
    refused = await api.operator.delete(f"{PATH}/direct")
    assert refused.status_code == 409
    assert "not settled yet" in refused.json()["detail"]
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, **NEVER_REACHED)])
    assert (await api.operator.delete(f"{PATH}/direct")).status_code == 204
    assert (await api.operator.get(f"{PATH}/direct")).status_code == 404
    assert await offers(books) == {}


async def test_the_default_provider_stays(api: MeterApi) -> None:
    assert (await api.operator.delete(f"{PATH}/openrouter")).status_code == 409
    second = {"name": "second", "dialect": "openrouter", "base_url": "https://example.com"}
    assert (await api.operator.post(PATH, json=second)).status_code == 409
    changed = await api.operator.patch(f"{PATH}/openrouter", json={"is_free": True})
    assert changed.status_code == 409
    assert "TOLLKEEPER_PROVIDER_BASE_URL" in changed.json()["detail"]
    assert (await api.operator.patch(f"{PATH}/openrouter", json={})).status_code == 200
    assert (await import_prices(api, "openrouter", price("a", "1", "2"))).status_code == 409


async def test_a_provider_that_fails_disturbs_no_other(books: Books, server: Server) -> None:
    """Its failure is told, with what to do; a provider that is added is synced at once."""
    await admit_operator(books.pool)
    keys = PostgresProviderKeys(books.pool, MasterKey(b"m" * 32))
    registry = CollectorRegistry()
    nobody = "http://127.0.0.1:9"
    plain = BaseUrls.from_setting("127.0.0.0/8")
    meter = Providers(books.pool, keys, registry, nobody, plain, 3_600.0)
    server.names = ["llama"]
    async with (
        background("providers", meter.registry.run()),
        background("syncs", meter.syncs.run()),
        meter_api(books.pool) as api,
    ):
        # Another meter's API makes it; this one finds it by itself.
        await make(api, name="vllm", dialect="openai_compatible", base_url=server.url, is_free=True)

        async def is_offered() -> bool:
            return "vllm/llama" in await offers(books)

        await until(is_offered, "the provider is synced")
        await until(lambda: "openrouter" in (meter.syncs.problem() or ""), "the failure is told")
        assert "vllm" not in (meter.syncs.problem() or "")
        listed = {one["name"]: one for one in (await api.operator.get(PATH)).json()["data"]}
        assert listed["vllm"]["sync"]["failure"] is None
        assert listed["vllm"]["sync"]["models"] == 1
        assert "failed" in listed["openrouter"]["sync"]["failure"]
        failures = {"provider": "openrouter"}
        assert registry.get_sample_value("tollkeeper_catalogue_sync_failures_total", failures)
        await api.operator.post(f"{PATH}/vllm/disable")
        gone = {"provider": "vllm"}
        await until(
            lambda: registry.get_sample_value("tollkeeper_catalogue_models", gone) is None,
            "its sync has ended",
        )
