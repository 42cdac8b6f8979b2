"""API keys of the meter API: shown once, never again, revoked for good."""

from typing import Any

from meter.identity.keys.key_text import parse
from tests.meter_api import ADMIN, MeterApi, every_page


async def test_the_secret_is_in_one_answer_only(api: MeterApi) -> None:
    await api.user("ada")
    path = f"{ADMIN}/users/ada/api-keys"
    made = await api.operator.post(
        path, json={"name": "app", "expires_in_days": 90, "allowed_models": ["openai/*"]}
    )
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert parse(key["key"]) is not None
    assert key["key"].startswith(key["prefix"] + "-")
    listed = await api.operator.get(path)
    assert key["key"][-49:] not in listed.text
    only_once = ("key", "warnings")
    assert listed.json()["data"] == [{name: key[name] for name in key if name not in only_once}]
    (own,) = (await api.as_key(key["key"], "/api/v1/keys")).json()["data"]
    assert own == {**listed.json()["data"][0], "created_by": "administrator"}
    stored = await api.pool.fetchrow("SELECT * FROM credentials")
    assert key["key"][-49:] not in repr(dict(stored))  # type: ignore[arg-type]


async def test_a_key_expires_by_the_database_clock(api: MeterApi) -> None:
    await api.user("ada")
    key = await api.key("ada", expires_in_days=30)
    days = await api.pool.fetchval(
        "SELECT extract(epoch FROM expires_at - created_at) / 86400 FROM credentials"
    )
    assert round(float(days), 3) == 30
    assert (await api.as_key(key["key"], "/api/v1/credits")).status_code == 200
    await api.pool.execute("UPDATE credentials SET expires_at = clock_timestamp()")
    assert (await api.as_key(key["key"], "/api/v1/credits")).status_code == 401


async def test_a_revoked_key_ends_at_once_and_stays_listed(api: MeterApi) -> None:
    await api.user("ada")
    key = await api.key("ada")
    path = f"{ADMIN}/users/ada/api-keys/{key['id']}"
    first = await api.operator.delete(path)
    assert (first.status_code, first.content) == (204, b"")
    assert (await api.as_key(key["key"], "/api/v1/credits")).status_code == 401
    before = (await api.operator.get(f"{ADMIN}/users/ada/api-keys")).json()
    assert before["data"][0]["revoked_at"] is not None
    assert (await api.operator.delete(path)).status_code == 204
    assert (await api.operator.get(f"{ADMIN}/users/ada/api-keys")).json() == before


async def test_a_key_of_somebody_else_is_like_none(api: MeterApi) -> None:
    await api.user("ada")
    await api.user("bob")
    key = await api.key("ada")
    for key_id in (key["id"], "aaaaaaaaaaaaaaaa", "%00", "x"):
        answer = await api.operator.delete(f"{ADMIN}/users/bob/api-keys/{key_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await api.as_key(key["key"], "/api/v1/credits")).status_code == 200


async def test_terms_that_make_no_sense_are_refused(api: MeterApi) -> None:
    await api.user("ada")
    wrong: list[dict[str, Any]] = [
        {"expires_in_days": 0},
        {"expires_in_days": 3651},
        {"expires_in_days": 1.5},
        {"expires_in_days": "7"},
        {"allowed_models": []},
        {"allowed_models": [""]},
        {"allowed_models": ["a b"]},
        {"allowed_models": ["a\x00"]},
        {"allowed_models": "openai/*"},
        {"allowed_models": [f"m{n}" for n in range(101)]},
        {"key": "tk-mine"},
        {"name": ""},
    ]
    for terms in wrong:
        body = {"name": "app", **terms}
        refused = await api.operator.post(f"{ADMIN}/users/ada/api-keys", json=body)
        assert refused.status_code == 422, terms
        assert "tk-mine" not in refused.text


async def test_keys_are_paged_newest_first(api: MeterApi) -> None:
    await api.user("ada")
    made = [(await api.key("ada", name=f"key {number}"))["id"] for number in range(7)]
    rows = await every_page(api.operator, f"{ADMIN}/users/ada/api-keys", limit=3)
    assert [row["id"] for row in rows] == made[::-1]
