"""Provider keys of accounts: tried, sealed, shown by their last characters, and deleted."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, generate_latest

from meter.money import own_key_markup
from meter.providers.own_key_refusals import OwnKeyRefusals
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import Books, Payer, observed
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api

PATH = "/api/v1/provider-keys"
SECRET = "sk-or-v1-own-key-that-nobody-else-sees-7f3a"
KEEPER = {"scopes": ["usage:read", "keys:write", "inference"]}


@dataclass
class Provider:
    """A provider that answers GET /key as it is told."""

    url: str = ""
    status: int = 200
    presented: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.presented.append(request.headers["authorization"])
        return web.json_response({"data": {"usage": 1, "echo": SECRET}}, status=self.status)


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    application = web.Application()
    application.add_routes([web.get("/api/v1/key", provider.answer)])
    async with TestServer(application) as server:
        provider.url = str(server.make_url("/api/v1"))
        yield provider


@dataclass
class Owner:
    """An account, and what it is answered; `said` is every reply that anybody got."""

    api: MeterApi
    account_id: str
    secret: str
    key_id: str
    said: list[str] = field(default_factory=list)

    async def ask(
        self, method: str = "GET", path: str = "", body: object = None
    ) -> httpx2.Response:
        answer = await self.api.as_key(self.secret, PATH + path, method, body)
        self.said.append(answer.text)
        return answer

    async def put(self, key: str = SECRET, provider: str = "openrouter") -> httpx2.Response:
        return await self.ask("PUT", f"/{provider}", {"key": key})

    async def listed(self) -> dict[str, Any]:
        answer = await self.ask()
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def make_owner(api: MeterApi, account_id: str, **terms: Any) -> Owner:
    await api.user(account_id)
    key = await api.key(account_id, **{**KEEPER, **terms})
    return Owner(api, account_id, key["key"], key["id"])


@pytest_asyncio.fixture
async def own(books: Books, provider: Provider) -> AsyncIterator[MeterApi]:
    """The API of a meter whose openrouter is that provider."""
    await admit_operator(books.pool)
    async with meter_api(books.pool, provider_url=provider.url) as api:
        yield api


async def test_a_key_is_tried_stored_shown_replaced_and_deleted(
    own: MeterApi, provider: Provider
) -> None:
    ada = await make_owner(own, "ada")
    assert await ada.listed() == {
        "mode": "prefer",
        "may_fall_back_to_credit": False,
        "fee_bps": 0,
        "data": [],
    }
    assert (await ada.put()).status_code == 204
    assert provider.presented == [f"Bearer {SECRET}"]
    (shown,) = (await ada.listed())["data"]
    assert (shown["provider"], shown["hint"], shown["refused_at"]) == (
        "openrouter",
        "...7f3a",
        None,
    )
    assert (await ada.put("sk-or-v1-another-key-of-ada-99zz")).status_code == 204
    assert (await ada.listed())["data"][0]["hint"] == "...99zz"
    opened = await own.keys.find_own_keys("ada")
    plain = opened["openrouter"].plain
    assert plain is not None and plain.reveal().endswith("99zz")
    assert (await ada.ask("DELETE", "/openrouter")).status_code == 204
    assert (await ada.listed())["data"] == []
    again = await ada.ask("DELETE", "/openrouter")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


async def test_a_key_that_is_refused_or_cannot_be_tried_is_not_stored(
    own: MeterApi, provider: Provider
) -> None:
    ada = await make_owner(own, "ada")
    provider.status = 401
    refused = await ada.put()
    assert (refused.status_code, refused.json()["code"]) == (422, "provider_key_refused")
    provider.status = 500
    away = await ada.put()
    assert (away.status_code, away.json()["code"]) == (503, "provider_unavailable")
    assert "could not be asked" in away.json()["detail"]
    unknown = await ada.put(provider="nowhere")
    assert unknown.status_code == 404
    assert "openrouter" in unknown.json()["detail"]
    assert (await ada.put("line\nbreak")).status_code == 422
    assert (await ada.listed())["data"] == []


async def test_nobody_tries_stolen_keys_here(
    own: MeterApi, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.providers.own_keys.MOST_REFUSED", 2)
    ada = await make_owner(own, "ada")
    provider.status = 401
    statuses = [(await ada.put(f"sk-or-v1-stolen-key-number-{one}")).status_code for one in "abc"]
    assert statuses == [422, 422, 429]
    assert len(provider.presented) == 2
    provider.status = 200
    bob = await make_owner(own, "bob")
    assert (await bob.put()).status_code == 204, "others do not wait with it"


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"scopes": ["usage:read", "inference"]}, "insufficient_scope"),
        ({"budgets": {"day": "1.00"}}, "not_permitted"),
        ({"allowed_models": ["openai/*"]}, "not_permitted"),
    ],
)
async def test_a_restricted_key_sets_no_key_for_all(
    own: MeterApi, provider: Provider, terms: dict[str, Any], code: str
) -> None:
    ada = await make_owner(own, "ada", **terms)
    answer = await ada.put()
    assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert provider.presented == [], "the provider is asked for those only who may store the key"


async def test_the_house_s_key_is_nobody_s_own(own: MeterApi, books: Books) -> None:
    await books.pool.execute(
        "INSERT INTO provider_keys (provider, owner, key_version, sealed, hint)"
        " VALUES ('openrouter', 'system', 1, 'x', '...')"
    )
    system = await make_owner(own, "system")
    assert (await system.listed())["data"] == []
    assert (await system.put()).status_code == 403
    assert (await system.ask("DELETE", "/openrouter")).status_code == 403
    assert await own.keys.find_own_keys("system") == {}
    counted = "SELECT count(*) FROM live_principals WHERE has_own_keys"
    assert await books.pool.fetchval(counted) == 0
    ada = await make_owner(own, "ada")
    assert (await ada.put()).status_code == 204
    assert await books.pool.fetchval(counted) == 1


async def test_terms_are_changed_and_reach_the_principal(own: MeterApi, books: Books) -> None:
    ada = await make_owner(own, "ada")
    answer = await ada.ask("PATCH", "", {"mode": "only"})
    assert (answer.status_code, answer.json()["mode"]) == (200, "only")
    await ada.ask("PATCH", "", {"may_fall_back_to_credit": True})
    listed = await ada.listed()
    assert (listed["mode"], listed["may_fall_back_to_credit"]) == ("only", True)
    assert (await ada.ask("PATCH", "", {"mode": "sometimes"})).status_code == 422
    row = await books.pool.fetchrow(
        "SELECT own_key_mode, may_fall_back_to_credit, own_key_fee_bps FROM live_principals"
        " WHERE account_id = 'ada'"
    )
    assert row is not None and tuple(row) == ("only", True, 0)
    await books.pool.execute("UPDATE credentials SET own_key_mode = 'never'")
    mode = "SELECT own_key_mode FROM live_principals WHERE account_id = 'ada'"
    assert await books.pool.fetchval(mode) == "never", "the key's own mode takes precedence"


async def test_a_refusal_of_a_request_is_shown_until_the_key_is_set_again(
    own: MeterApi, books: Books
) -> None:
    ada = await make_owner(own, "ada")
    assert (await ada.put()).status_code == 204
    payer = Payer("ada", ada.key_id, ada.secret)
    refusals = OwnKeyRefusals(books.pool, registry := CollectorRegistry())
    store = PostgresSettlementStore(books.pool, note_refused=refusals.note)

    async def refuse(began_at: datetime) -> None:
        request = books.request(payer, 0, markup_bps=own_key_markup(0))
        await books.holds.place(request)
        refused = observed(
            request.hold_id,
            usage=None,
            provider_status=402,
            status_code=401,
            generation_id=None,
            started_at=began_at,
        )
        await store.settle([refused])
        await refusals.write()

    # The key that was refused may have been the former one.
    await refuse(datetime.now(UTC))
    assert (await ada.listed())["data"][0]["refused_at"] is None
    await refuse(datetime.now(UTC) + timedelta(hours=1))
    (shown,) = (await ada.listed())["data"]
    assert (shown["refused_status"], shown["refused_at"] is None) == (402, False)
    assert (await own.keys.find_own_keys("ada"))["openrouter"].is_refused
    counted = {"provider": "openrouter", "status": "402"}
    assert registry.get_sample_value("tollkeeper_own_key_refusals_total", counted) == 2
    seen = await own.operator.get(f"{ADMIN}/users/ada/provider-keys")
    assert seen.json()["data"][0]["refused_status"] == 402
    assert (await ada.put("sk-or-v1-a-fresh-key-of-ada-0001")).status_code == 204
    assert (await ada.listed())["data"][0]["refused_at"] is None


async def test_a_key_leaks_nowhere(own: MeterApi, books: Books, provider: Provider) -> None:
    with structlog.testing.capture_logs() as logs:
        ada, bob = await make_owner(own, "ada"), await make_owner(own, "bob")
        await ada.put()
        for status in (401, 402, 500):
            provider.status = status
            await ada.put(SECRET + "x")
        await ada.ask("PUT", "/openrouter", {"key": SECRET, "other": SECRET})
        await ada.ask("PUT", "/openrouter", {"key": [SECRET]})
        await ada.put("\n" + SECRET)
        await ada.put(SECRET * 20)
        await ada.listed()
        # Another account neither sees the key nor ends it.
        assert (await bob.listed())["data"] == []
        assert (await bob.ask("DELETE", "/openrouter")).status_code == 404
        administrators = [
            (await own.operator.get(f"{ADMIN}{path}")).text
            for path in ("/users/ada/provider-keys", "/providers", "/audit-log", "/users/ada")
        ]
        own_log = await own.as_key(ada.secret, "/api/v1/audit-log")
        answer = await own.operator.delete(f"{ADMIN}/users/ada/provider-keys/openrouter")
        assert answer.status_code == 204
    assert "7f3a" not in "".join(administrators), "administrators see that there is a key"
    assert next(line["action"] for line in own_log.json()["data"]) == "provider_key.set"
    everything = "".join(
        (
            *ada.said,
            *bob.said,
            *administrators,
            own_log.text,
            json.dumps(logs, default=repr),
            generate_latest(own.registry).decode(),
        )
    )
    assert SECRET not in everything
    tables = await books.pool.fetch("SELECT p::text AS row FROM audit_log p")
    assert SECRET not in "".join(row["row"] for row in tables)
