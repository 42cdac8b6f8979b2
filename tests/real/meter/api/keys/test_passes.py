"""Passes over the API: exchanged, used, listed, ended; and the rules that narrow them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import pytest_asyncio

from meter.audit.events import Actor
from meter.errors import Conflict
from meter.identity.pass_issuer import IssuedPass
from meter.identity.pass_store import PassStore
from meter.identity.passes import PassOrder, draw_up
from meter.identity.principal import ByIdentity, ByPass, Principal
from meter.identity.principal_store import PostgresPrincipals
from meter.jwts.verified import VerifiedIdentity, VerifiedPass
from meter.scopes import Scope
from meter.sealing import SecretText
from tests.books import Books
from tests.meter_api import ADMIN, OWN_ISSUER, MeterApi, every_page

TOKEN = "/api/v1/auth/token"
ALL = ["inference", "models:read", "usage:read", "keys:write"]


@pytest_asyncio.fixture
async def key(api: MeterApi) -> AsyncIterator[str]:
    """A key of the user `ada` that may do everything but administer."""
    await api.user("ada", "5")
    yield (await api.key("ada", scopes=ALL, allowed_models=["openai/*"]))["key"]


async def exchange(api: MeterApi, credential: str, **order: Any) -> dict[str, Any]:
    answer = await api.as_key(credential, TOKEN, "POST", order)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def audit_actions(api: MeterApi) -> list[str]:
    rows = await api.pool.fetch(
        "SELECT action FROM audit_log WHERE action LIKE 'pass.%' ORDER BY id"
    )
    return [row["action"] for row in rows]


async def test_a_key_is_exchanged_for_a_pass_that_plain_pyjwt_verifies(
    api: MeterApi, key: str
) -> None:
    answer = await api.as_key(key, TOKEN, "POST", {"expires_in_s": 60, "scopes": ["usage:read"]})
    made = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (made["token_type"], made["expires_in"], made["scope"]) == ("Bearer", 60, "usage:read")

    published = await api.anybody.get("/.well-known/jwks.json")
    assert published.headers["cache-control"] == "public, max-age=60"
    header = jwt.get_unverified_header(made["access_token"])
    assert (header["typ"], header["alg"]) == ("at+jwt", "EdDSA")
    chosen = jwt.PyJWKSet.from_dict(published.json())[header["kid"]]
    claims = jwt.decode(
        made["access_token"],
        chosen,
        algorithms=["EdDSA"],
        audience=OWN_ISSUER.audience,
        issuer=OWN_ISSUER.url,
        options={"require": ["sub", "iss", "aud", "iat", "nbf", "exp", "jti"]},
    )
    assert (claims["sub"], claims["jti"]) == ("ada", made["jti"])
    assert claims["exp"] - claims["iat"] == 60
    assert claims["scope"] == "usage:read"
    assert claims["client_id"] == key.split("-")[1]


async def test_what_is_published_is_public_and_says_where_the_rest_is(
    api: MeterApi, key: str
) -> None:
    await exchange(api, key)
    (jwk,) = (await api.anybody.get("/.well-known/jwks.json")).json()["keys"]
    assert set(jwk) == {"kty", "crv", "x", "kid", "alg", "use"}
    said = (await api.anybody.get("/.well-known/openid-configuration")).json()
    assert said["issuer"] == OWN_ISSUER.url
    assert said["jwks_uri"] == OWN_ISSUER.url + "/.well-known/jwks.json"
    assert said["token_endpoint"] == OWN_ISSUER.url + TOKEN


async def test_a_pass_has_by_default_what_the_key_has_but_for_keys(api: MeterApi, key: str) -> None:
    made = await exchange(api, key)
    assert made["scope"] == "inference models:read usage:read"
    assert made["expires_in"] == 900
    assert (await api.as_key(made["access_token"], "/api/v1/credits")).status_code == 200


async def test_a_pass_narrows_models_beside_the_key(api: MeterApi, key: str, books: Books) -> None:
    made = await exchange(api, key, allowed_models=["*/gpt-test"], budget="0.5")
    principal = await PostgresPrincipals(books.pool).find(
        ByPass(VerifiedPass(made["jti"], datetime.now(UTC)))
    )
    assert principal is not None
    assert set(principal.model_lists) == {frozenset({"openai/*"}), frozenset({"*/gpt-test"})}
    (listed,) = (await api.as_key(key, "/api/v1/passes")).json()["data"]
    assert (listed["budget"], listed["spent"]) == ("0.50", "0.00")


NONSENSE: list[dict[str, Any]] = [
    {"expires_in_s": 59},
    {"expires_in_s": 86_401},
    {"expires_in_s": "60"},
    {"scopes": []},
    {"scopes": ["everything"]},
    {"allowed_models": []},
    {"budget": "-1"},
    {"budget": 1},
    {"audience": "x"},
]


async def test_orders_that_make_no_sense_are_refused(api: MeterApi, key: str) -> None:
    for order in NONSENSE:
        assert (await api.as_key(key, TOKEN, "POST", order)).status_code == 422, order
    assert (await api.as_key(key, "/api/v1/passes")).json()["data"] == []


async def test_a_pass_has_no_scope_beyond_its_key_and_makes_no_other(
    api: MeterApi, key: str
) -> None:
    answer = await api.as_key(key, TOKEN, "POST", {"scopes": ["inference", "admin:read"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    made = await exchange(api, key, scopes=ALL)
    answer = await api.as_key(made["access_token"], TOKEN, "POST", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    assert (await api.anybody.post(TOKEN, json={})).status_code == 401


async def test_a_suspended_user_gets_no_pass(api: MeterApi, key: str) -> None:
    await api.operator.post(f"{ADMIN}/users/ada/suspend")
    assert (await api.as_key(key, TOKEN, "POST", {})).status_code == 403
    assert (await api.operator.post(f"{ADMIN}/users/ada/passes")).status_code == 403


async def test_a_pass_never_outlives_its_key(api: MeterApi) -> None:
    await api.user("bob")
    ends_at = (datetime.now(UTC) + timedelta(seconds=120)).replace(microsecond=0)
    key = await api.key("bob", expires_at=ends_at.isoformat())
    made = await exchange(api, key["key"], expires_in_s=3600)
    assert made["expires_in"] <= 120
    claims = jwt.decode(made["access_token"], options={"verify_signature": False})
    assert claims["exp"] <= ends_at.timestamp()


async def test_administrators_issue_passes_without_a_key(api: MeterApi) -> None:
    await api.user("bob")
    answer = await api.operator.post(f"{ADMIN}/users/bob/passes", json={"expires_in_s": 60})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made["scope"] == "inference models:read usage:read"
    assert (await api.as_key(made["access_token"], "/api/v1/credits")).status_code == 200
    second = await api.operator.post(f"{ADMIN}/users/bob/passes")
    claims = [
        jwt.decode(one["access_token"], options={"verify_signature": False})
        for one in (made, second.json())
    ]
    assert claims[0]["client_id"] == claims[1]["client_id"]
    refused = await api.operator.post(f"{ADMIN}/users/bob/passes", json={"scopes": ["admin:read"]})
    assert refused.status_code == 403
    assert (await api.operator.post(f"{ADMIN}/users/nobody/passes")).status_code == 404


async def test_users_do_not_see_which_administrator_issued_a_pass(api: MeterApi, key: str) -> None:
    await api.user("boss")
    boss = (await api.key("boss", scopes=["admin:read", "admin:write"]))["key"]
    path = f"{ADMIN}/users/ada/passes"
    assert (await api.operator.post(path)).status_code == 201
    assert (await api.as_key(boss, path, "POST")).status_code == 201
    own = (await api.as_key(key, "/api/v1/passes")).json()["data"]
    assert [one["created_by"] for one in own] == ["administrator"] * 2
    everything = (await api.operator.get(path)).json()["data"]
    assert {one["created_by"] for one in everything} == {"administrator", "operator:operator"}


async def is_good(api: MeterApi, made: dict[str, Any]) -> bool:
    answer = await api.as_key(made["access_token"], "/api/v1/credits")
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def test_passes_end_one_by_one_by_key_and_by_user(api: MeterApi, key: str) -> None:
    other = (await api.key("ada"))["key"]
    first, second, third = [await exchange(api, one) for one in (key, key, other)]
    assert (await api.as_key(key, f"/api/v1/passes/{first['jti']}", "DELETE")).status_code == 204
    assert [await is_good(api, one) for one in (first, second, third)] == [False, True, True]
    ended = await api.as_key(key, "/api/v1/passes", "DELETE", credential=key.split("-")[1])
    assert ended.json() == {"revoked": 1}
    assert [await is_good(api, one) for one in (second, third)] == [False, True]
    ended = await api.operator.delete(f"{ADMIN}/users/ada/passes")
    assert ended.json() == {"revoked": 1}
    assert not await is_good(api, third)
    assert await audit_actions(api) == [
        *["pass.created"] * 3,
        "pass.revoked",
        *["pass.all_revoked"] * 2,
    ]


async def test_a_revoked_key_ends_its_passes(api: MeterApi, key: str) -> None:
    made = await exchange(api, key)
    await api.operator.delete(f"{ADMIN}/users/ada/api-keys/{key.split('-')[1]}")
    assert not await is_good(api, made)


async def test_a_pass_may_end_itself_and_no_other(api: MeterApi, key: str) -> None:
    first, second = await exchange(api, key), await exchange(api, key)
    path = f"/api/v1/passes/{first['jti']}"
    assert (await api.as_key(second["access_token"], path, "DELETE")).status_code == 403
    assert (await api.as_key(first["access_token"], path, "DELETE")).status_code == 204
    assert (await api.as_key(first["access_token"], path, "DELETE")).status_code == 401


async def test_passes_of_others_do_not_exist(api: MeterApi, key: str) -> None:
    await api.user("eve")
    eve = (await api.key("eve", scopes=ALL))["key"]
    made = await exchange(api, key)
    for pass_id in (made["jti"], "a" * 22, "x", "a" * 100):
        answer = await api.as_key(eve, f"/api/v1/passes/{pass_id}", "DELETE")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await api.as_key(eve, "/api/v1/passes", "DELETE", credential=key.split("-")[1])
    assert answer.status_code == 404
    assert (await api.as_key(eve, "/api/v1/passes")).json()["data"] == []
    assert await is_good(api, made)


async def test_lists_come_in_pages_and_never_show_a_jwt(api: MeterApi, key: str) -> None:
    made = [await exchange(api, key) for _ in range(3)]
    rows = await every_page(api.operator, f"{ADMIN}/users/ada/passes", limit=2)
    assert {row["jti"] for row in rows} == {one["jti"] for one in made}
    assert all(one["access_token"] not in str(rows) for one in made)
    assert all(row["created_by"] == f"key:{key.split('-')[1]}" for row in rows)


async def test_there_are_so_many_passes_and_no_more(api: MeterApi, key: str, books: Books) -> None:
    store = PassStore(books.pool, most_live=2)
    principals = PostgresPrincipals(books.pool)
    await exchange(api, key)
    (listed,) = (await api.as_key(key, "/api/v1/passes")).json()["data"]
    root = await principals.find(ByPass(VerifiedPass(listed["jti"], datetime.now(UTC))))
    assert root is not None
    now = datetime.now(UTC)
    new = draw_up(replace(root, pass_id=None), PassOrder(), "test", now)
    await store.add(new, Actor("test"))
    with pytest.raises(Conflict):
        await store.add(replace(new, id="b" * 22), Actor("test"))
    await store.revoke("ada", listed["jti"], Actor("test"))
    await store.add(replace(new, id="b" * 22), Actor("test"))


async def test_what_ended_long_ago_is_forgotten(api: MeterApi, key: str, books: Books) -> None:
    old, young = await exchange(api, key), await exchange(api, key)
    now = datetime.now(UTC)
    await books.pool.execute(
        "UPDATE passes SET expires_at = $2 WHERE id = $1", old["jti"], now - timedelta(hours=26)
    )
    rows = [(old["jti"], "total", "1970-01-01"), (young["jti"], "total", "1970-01-01")]
    rows += [("k", "day", "2020-01-01"), ("k", "total", "1970-01-01")]
    await books.pool.executemany(
        "INSERT INTO spending (subject, period, starts_on) VALUES ($1, $2, $3::text::date)", rows
    )
    store = PassStore(books.pool)
    before = now - timedelta(hours=25)
    assert await store.forget(before, (now - timedelta(days=100)).date()) == (1, 1)
    assert await store.forget(before, (now - timedelta(days=100)).date()) == (0, 0)
    left = await books.pool.fetch("SELECT subject FROM spending ORDER BY subject")
    assert {row["subject"] for row in left} == {young["jti"], "k"}


async def test_identities_may_have_passes_too(books: Books, api: MeterApi) -> None:
    await api.operator.put(
        f"{ADMIN}/issuers/id", json={"url": "https://id.example", "terms": {"audiences": ["a"]}}
    )
    until = datetime.now(UTC) + timedelta(seconds=90)
    scopes = frozenset({Scope.INFERENCE, Scope.KEYS_WRITE, Scope.ADMIN_READ})
    seen = VerifiedIdentity("id", "sub", "sub", scopes, None, True, None, until, until)
    principal = await PostgresPrincipals(books.pool).find(ByIdentity(seen))
    assert principal is not None
    principal = replace(principal, scopes=scopes, ends_at=until)
    drawn = draw_up(principal, PassOrder(), "test", datetime.now(UTC))
    assert drawn.scopes == {Scope.INFERENCE}
    assert drawn.expires_at <= until


def test_what_holds_a_jwt_does_not_show_it() -> None:
    now = datetime.now(UTC)
    terms = draw_up(Principal("c", "a", 0), PassOrder(), "test", now)
    assert "the-jwt" not in repr(IssuedPass(terms, SecretText("the-jwt")))
