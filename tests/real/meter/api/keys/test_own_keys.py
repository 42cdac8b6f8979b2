"""Users manage their own keys, and never get more from it than an administrator gave."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.meter_api import ADMIN, MeterApi

KEYS = "/api/v1/keys"
SCOPES = ["inference", "keys:write", "models:read", "usage:read"]


@pytest.fixture
async def keeper(api: MeterApi) -> str:
    """The secret of a key that may manage keys."""
    await api.user("ada")
    return await keeping(api)


async def keeping(api: MeterApi, user: str = "ada", **terms: Any) -> str:
    """Another such key, on these terms."""
    secret: str = (await api.key(user, **{"scopes": SCOPES, **terms}))["key"]
    return secret


async def ask(
    api: MeterApi, secret: str, method: str, path: str = "", body: object = None
) -> tuple[int, dict[str, Any]]:
    """Status and answer of a request about one's own keys."""
    sent = {} if body is None and method in ("POST", "PATCH") else body
    answer = await api.as_key(secret, KEYS + path, method, sent)
    return answer.status_code, answer.json() if answer.content else {}


async def refused(api: MeterApi, secret: str, *request: Any) -> str:
    """The sentence of a refusal."""
    status, problem = await ask(api, secret, *request)
    assert (status, problem["code"]) == (403, "not_permitted"), problem
    return str(problem["detail"])


def id_of(secret: str) -> str:
    """The id in a key."""
    return secret.split("-")[1]


async def test_a_user_leads_a_key_through_its_life(api: MeterApi, keeper: str) -> None:
    status, made = await ask(api, keeper, "POST", "", {"name": "mine", "tags": {"a": "b"}})
    assert status == 201
    assert made["scopes"] == ["inference", "models:read", "usage:read"]
    assert made["created_by"] == f"key:{id_of(keeper)}"
    path = f"/{made['id']}"
    assert (await ask(api, keeper, "PATCH", path, {"budgets": {"day": "2"}}))[0] == 200
    status, shown = await ask(api, keeper, "GET", path)
    assert shown["spending"][0]["limit"] == "2.00"
    assert (await ask(api, keeper, "POST", f"{path}/suspend"))[1]["status"] == "suspended"
    assert (await ask(api, keeper, "POST", f"{path}/resume"))[1]["status"] == "active"
    status, rotated = await ask(api, keeper, "POST", f"{path}/rotate", {"overlap_s": 9})
    assert (status, rotated["id"]) == (200, made["id"])
    assert (await ask(api, keeper, "DELETE", f"{path}/previous-secret"))[0] == 204
    assert (await api.as_key(made["key"], KEYS)).status_code == 401
    assert (await api.as_key(rotated["key"], KEYS)).status_code == 200
    assert (await ask(api, keeper, "DELETE", path))[0] == 204
    assert (await api.as_key(rotated["key"], KEYS)).status_code == 401


async def test_scopes_open_reading_and_writing_apart(api: MeterApi, keeper: str) -> None:
    reader = await keeping(api, scopes=["usage:read"])
    writer = await keeping(api, scopes=["keys:write", "inference"])
    neither = await keeping(api, scopes=["inference"])
    key_id = id_of(reader)
    reading = (("GET", ""), ("GET", f"/{key_id}"))
    writing = (
        ("POST", ""),
        ("PATCH", f"/{key_id}"),
        ("POST", f"/{key_id}/suspend"),
        ("POST", f"/{key_id}/resume"),
        ("POST", f"/{key_id}/rotate"),
        ("DELETE", f"/{key_id}/previous-secret"),
        ("DELETE", f"/{key_id}"),
    )
    for requests, mayn_t, scope in (
        (reading, (writer, neither), "usage:read"),
        (writing, (reader, neither), "keys:write"),
    ):
        for secret in mayn_t:
            for method, path in requests:
                body = {"name": "x"} if path == "" and method == "POST" else None
                answer = await api.as_key(secret, KEYS + path, method, body)
                assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
                assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    for path in ("credits", "transactions", "usage", "audit-log"):
        assert (await api.as_key(neither, f"/api/v1/{path}")).status_code == 403
        assert (await api.as_key(reader, f"/api/v1/{path}")).status_code == 200


async def test_what_the_maker_may_not_its_keys_may_not(api: MeterApi, keeper: str) -> None:
    end = (datetime.now(UTC) + timedelta(days=5)).isoformat().replace("+00:00", "Z")
    later = (datetime.now(UTC) + timedelta(days=6)).isoformat().replace("+00:00", "Z")
    bound = await keeping(
        api,
        scopes=["keys:write", "inference"],
        allowed_models=["openai/*", "a/b"],
        allowed_addresses=["127.0.0.0/8"],
        expires_at=end,
    )
    status, made = await ask(api, bound, "POST", "", {"name": "same"})
    assert status == 201
    assert made["scopes"] == ["inference"]
    assert made["allowed_models"] == ["openai/*", "a/b"]
    assert made["allowed_addresses"] == ["127.0.0.0/8"]
    assert datetime.fromisoformat(made["expires_at"]) == datetime.fromisoformat(end)
    narrower = {
        "name": "narrower",
        "allowed_models": ["openai/x"],
        "allowed_addresses": ["127.1.0.0/16"],
        "expires_in_days": 4,
    }
    assert (await ask(api, bound, "POST", "", narrower))[0] == 201
    free = await api.key("ada", name="free")
    for terms in (
        {"scopes": ["usage:read"]},
        {"scopes": ["inference", "admin:write"]},
        {"allowed_models": None},
        {"allowed_models": ["*"]},
        {"allowed_models": ["openai/*", "c/d"]},
        {"allowed_models": ["openai/g*"]},
        {"allowed_addresses": None},
        {"allowed_addresses": ["0.0.0.0/0"]},
        {"allowed_addresses": ["127.0.0.0/8", "::1/128"]},
        {"expires_at": None},
        {"expires_at": later},
        {"expires_in_days": 3650},
    ):
        await refused(api, bound, "POST", "", {"name": "x", **terms})
        await refused(api, bound, "PATCH", f"/{made['id']}", terms)
        await refused(api, bound, "PATCH", f"/{id_of(bound)}", terms)
    # A new secret of a wider key would be a way around all of this.
    await refused(api, bound, "POST", f"/{free['id']}/rotate")
    assert (await api.as_key(free["key"], KEYS)).status_code == 200


async def test_a_key_with_a_budget_or_limits_makes_none(api: MeterApi, keeper: str) -> None:
    other = await api.key("ada", name="other", budgets={"day": "5"})
    for terms in ({"budgets": {"total": "1"}}, {"limits": {"concurrent_requests": 1}}):
        bound = await keeping(api, **terms)
        own = f"/{id_of(bound)}"
        assert "budget or limits" in await refused(api, bound, "POST", "", {"name": "x", **terms})
        for lifted in ({"budgets": None}, {"budgets": {"day": "6"}}):
            await refused(api, bound, "PATCH", f"/{other['id']}", lifted)
        await refused(api, bound, "POST", f"/{other['id']}/rotate")
        for lifted in ({"budgets": None}, {"limits": None}):
            if set(lifted) == set(terms):
                await refused(api, bound, "PATCH", own, lifted)
        # Itself it may narrow, replace and end.
        assert (await ask(api, bound, "PATCH", own, {"budgets": {"total": "0.5"}}))[0] == 200
        status, rotated = await ask(api, bound, "POST", f"{own}/rotate")
        assert status == 200
        assert rotated["budgets"]["total"] == "0.50"
        assert (await ask(api, bound, "DELETE", own))[0] == 204


async def test_no_key_of_a_user_passes_the_plan(api: MeterApi, keeper: str) -> None:
    plan = {
        "name": "Small",
        "markup_bps": 0,
        "key_limits": {"requests_per_minute": 60},
        "self_service_scopes": ["inference", "keys:write"],
    }
    await api.operator.put(f"{ADMIN}/plans/small", json=plan)
    await api.operator.patch(f"{ADMIN}/users/ada", json={"plan": "small"})
    own = {"name": "x", "limits": {"requests_per_minute": 61}}
    assert "plan" in await refused(api, keeper, "POST", "", own)
    assert "plan" in await refused(api, keeper, "POST", "", {"name": "x", "scopes": ["usage:read"]})
    own["limits"] = {"requests_per_minute": 60}
    status, made = await ask(api, keeper, "POST", "", {**own, "scopes": ["inference"]})
    assert (status, made["limits"]["requests_per_minute"]) == (201, 60)


async def test_an_administrator_may_keep_keys_to_themselves(api: MeterApi, keeper: str) -> None:
    key = await api.key("ada")
    await api.operator.patch(f"{ADMIN}/users/ada", json={"may_manage_keys": False})
    for request in (
        ("POST", "", {"name": "x"}),
        ("PATCH", f"/{key['id']}", {"name": "y"}),
        ("POST", f"/{key['id']}/rotate"),
        ("POST", f"/{key['id']}/suspend"),
        ("DELETE", f"/{key['id']}"),
    ):
        assert "administrator" in await refused(api, keeper, *request)
    assert (await ask(api, keeper, "GET"))[0] == 200
    assert (await ask(api, keeper, "DELETE", f"/{id_of(keeper)}"))[0] == 204


async def test_a_secret_that_is_rotated_away_does_not_outlive_its_end(
    api: MeterApi, keeper: str
) -> None:
    path = f"/{id_of(keeper)}"
    new = (await ask(api, keeper, "POST", f"{path}/rotate", {"overlap_s": 600}))[1]["key"]
    for request in (
        ("POST", f"{path}/rotate", {"overlap_s": 0}),
        ("POST", "", {"name": "lasting"}),
        ("PATCH", path, {"name": "mine"}),
    ):
        assert "a secret that a rotation replaced" in await refused(api, keeper, *request)
        assert (await api.as_key(new, KEYS)).status_code == 200
    other = (await ask(api, new, "POST", "", {"name": "another"}))[1]["id"]
    assert (await ask(api, keeper, "DELETE", f"/{other}"))[0] == 204
    # A key that ends itself keeps its rights until then.
    ending = await keeping(api, expires_in_days=1)
    assert (await ask(api, ending, "POST", f"/{id_of(ending)}/rotate"))[0] == 200


async def test_an_administrator_suspends_what_its_user_had_suspended_already(
    api: MeterApi, keeper: str
) -> None:
    key = await api.key("ada")
    path = f"/{key['id']}"
    by_administrator = f"{ADMIN}/users/ada/api-keys{path}"
    assert (await ask(api, keeper, "POST", f"{path}/suspend"))[0] == 200
    for _ in range(2):
        assert (await api.operator.post(f"{by_administrator}/suspend")).status_code == 200
    assert (await ask(api, keeper, "POST", f"{path}/suspend"))[0] == 200
    assert "administrator" in await refused(api, keeper, "POST", f"{path}/resume")
    lines = (await api.operator.get(f"{ADMIN}/audit-log?action=key.suspended")).json()["data"]
    assert [line["detail"]["by_administrator"] for line in lines] == [True, False]


async def test_what_an_administrator_suspended_users_do_not_resume(
    api: MeterApi, keeper: str
) -> None:
    key = await api.key("ada")
    path = f"/{key['id']}"
    await api.operator.post(f"{ADMIN}/users/ada/api-keys/{key['id']}/suspend")
    assert "administrator" in await refused(api, keeper, "POST", f"{path}/resume")
    await api.operator.post(f"{ADMIN}/users/ada/api-keys/{key['id']}/resume")
    await ask(api, keeper, "POST", f"{path}/suspend")
    assert (await ask(api, keeper, "POST", f"{path}/resume"))[0] == 200
    await api.operator.post(f"{ADMIN}/users/ada/suspend")
    assert "suspended" in await refused(api, keeper, "POST", "", {"name": "x"})
    assert (await ask(api, keeper, "DELETE", path))[0] == 204


async def test_keys_of_others_are_like_none(api: MeterApi, keeper: str) -> None:
    await api.user("bob")
    foreign = await api.key("bob", name="planted-name-of-bob")
    for method, rest in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/suspend"),
        ("POST", "/resume"),
        ("POST", "/rotate"),
        ("DELETE", "/previous-secret"),
    ):
        answers = {
            key_id: await ask(api, keeper, method, f"/{key_id}{rest}")
            for key_id in (foreign["id"], "aaaaaaaaaaaaaaaa")
        }
        statuses = {status for status, _ in answers.values()}
        assert statuses == {404}, (method, rest)
        details = {
            answer["detail"].replace(key_id, "id") for key_id, (_, answer) in answers.items()
        }
        assert len(details) == 1
    assert "planted" not in (await api.as_key(keeper, KEYS)).text
    assert (await api.as_key(foreign["key"], KEYS)).status_code == 200


async def test_the_most_keys_hold_under_a_crowd(api: MeterApi, keeper: str) -> None:
    plan = {"name": "Few", "markup_bps": 0, "max_keys": 5}
    await api.operator.put(f"{ADMIN}/plans/few", json=plan)
    await api.operator.patch(f"{ADMIN}/users/ada", json={"plan": "few"})
    answers = await asyncio.gather(
        *(ask(api, keeper, "POST", "", {"name": f"key {number}"}) for number in range(20))
    )
    statuses = sorted(status for status, _ in answers)
    assert statuses == [201] * 4 + [403] * 16
    made = next(answer for status, answer in answers if status == 201)
    await ask(api, keeper, "DELETE", f"/{made['id']}")
    assert (await ask(api, keeper, "POST", "", {"name": "room again"}))[0] == 201
    # Administrators are not bound by it.
    await api.key("ada")


async def test_a_key_that_is_revoked_makes_no_more_keys(api: MeterApi, keeper: str) -> None:
    """However a revocation and a crowd of creations meet, none is made after it."""
    revoke = f"{ADMIN}/users/ada/api-keys/{id_of(keeper)}"
    tasks = [asyncio.create_task(ask(api, keeper, "POST", "", {"name": "late"})) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert (await api.operator.delete(revoke)).status_code == 204
    await asyncio.gather(*tasks)
    late = await api.pool.fetchval(
        "SELECT count(*) FROM credentials k, credentials r"
        " WHERE r.id = $1 AND k.name = 'late' AND k.created_at > r.revoked_at",
        id_of(keeper),
    )
    assert late == 0


async def test_users_are_not_told_which_administrator(api: MeterApi, keeper: str) -> None:
    await api.user("root")
    admin = await api.key("root", scopes=["admin:write"])
    made = await api.as_key(
        admin["key"], f"{ADMIN}/users/ada/api-keys", "POST", {"name": "by another"}
    )
    assert made.status_code == 201
    listed = (await api.as_key(keeper, KEYS)).json()["data"]
    assert {key["created_by"] for key in listed} == {"administrator"}
    log = await api.as_key(keeper, "/api/v1/audit-log")
    assert admin["id"] not in log.text
    assert "operator" not in log.text.replace("administrator", "")


async def test_keys_that_are_made_and_revoked_in_a_loop_are_limited(
    api: MeterApi, keeper: str
) -> None:
    await api.pool.execute(
        "INSERT INTO credentials (id, account_id, name, prefix, revoked_at)"
        " SELECT translate(lpad(n::text, 16, '0'), '0189', 'abcd'), account_id, 'x', 'sk', now()"
        " FROM credentials, generate_series(1, 1000) AS n WHERE id = $1",
        id_of(keeper),
    )
    status, problem = await ask(api, keeper, "POST", "", {"name": "one more"})
    assert status == 403
    assert "1,000 keys in 24 hours" in str(problem)
    age = "UPDATE credentials SET created_at = now() - interval '1 day' WHERE name = 'x'"
    await api.pool.execute(age)
    assert (await ask(api, keeper, "POST", "", {"name": "one more"}))[0] == 201
