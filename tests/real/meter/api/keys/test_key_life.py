"""The whole life of API keys, as administrators lead it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meter.identity.keys.key_text import parse
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import MODEL, USD, Books, Payer, observed
from tests.meter_api import ADMIN, MeterApi, every_page

CREDITS = "/api/v1/credits"
TERMS: dict[str, Any] = {
    "name": "app",
    "scopes": ["inference", "admin:read"],
    "allowed_models": [MODEL, "anthropic/*"],
    "allowed_addresses": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"],
    "budgets": {"day": "1.50", "total": "20"},
    "limits": {"requests_per_minute": 60, "concurrent_requests": 2},
    "tags": {"team": "search", "stage": "live"},
    "expires_in_days": 30,
}


@pytest.fixture
async def keys(api: MeterApi) -> str:
    """The path of somebody's keys."""
    await api.user("ada")
    return f"{ADMIN}/users/ada/api-keys"


async def works(api: MeterApi, secret: str) -> bool:
    """Return whether the meter API lets a key in."""
    return (await api.as_key(secret, CREDITS)).status_code == 200


async def test_a_key_has_all_its_terms(api: MeterApi, keys: str) -> None:
    made = await api.operator.post(keys, json=TERMS)
    assert made.status_code == 201, made.text
    key = made.json()
    assert made.headers["location"] == f"{keys}/{key['id']}"
    assert key["scopes"] == ["admin:read", "inference"]
    assert key["allowed_addresses"] == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]
    assert key["budgets"] == {"day": "1.50", "week": None, "month": None, "total": "20.00"}
    assert key["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "concurrent_requests": 2,
        "requests_per_day": None,
        "requests_per_month": None,
    }
    assert (key["tags"], key["status"]) == (TERMS["tags"], "active")
    assert (key["created_by"], key["last_used_at"]) == ("operator:operator", None)
    assert key["warnings"] == []
    shown = (await api.operator.get(f"{keys}/{key['id']}")).json()
    assert {name: shown[name] for name in shown if name != "spending"} == {
        name: key[name] for name in key if name not in ("key", "warnings")
    }
    assert [(one["period"], one["limit"], one["left"]) for one in shown["spending"]] == [
        ("day", "1.50", "1.50"),
        ("total", "20.00", "20.00"),
    ]
    day, total = shown["spending"]
    start, end = (datetime.fromisoformat(day[name]) for name in ("starts_at", "ends_at"))
    assert (end - start, start.utctimetuple()[3:6]) == (timedelta(days=1), (0, 0, 0))
    assert (total["starts_at"], total["ends_at"]) == (None, None)


async def test_models_that_are_not_listed_are_warned_of(api: MeterApi, keys: str) -> None:
    key = await api.key("ada", allowed_models=["openai/*", MODEL, "no/such"])
    assert len(key["warnings"]) == 1
    assert "no/such" in key["warnings"][0]


async def test_terms_that_make_no_sense_are_named(api: MeterApi, keys: str) -> None:
    past = "2020-01-01T00:00:00Z"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"scopes": "inference"}, "scopes"),
        ({"allowed_addresses": []}, "allowed_addresses"),
        ({"allowed_addresses": ["10.0.0.1/8"]}, "allowed_addresses"),
        ({"allowed_addresses": ["::ffff:10.0.0.0/104"]}, "allowed_addresses"),
        ({"allowed_addresses": ["fe80::1%eth0"]}, "allowed_addresses"),
        ({"allowed_addresses": ["10.0.0.0/33"]}, "allowed_addresses"),
        ({"allowed_addresses": ["example.com"]}, "allowed_addresses"),
        ({"allowed_addresses": [f"10.0.0.{n}" for n in range(65)]}, "allowed_addresses"),
        ({"budgets": {"day": "-1"}}, "budgets"),
        ({"budgets": {"day": 5}}, "budgets"),
        ({"budgets": {"day": "1e3"}}, "budgets"),
        ({"budgets": {"year": "5"}}, "budgets"),
        ({"limits": {"requests_per_minute": 0}}, "limits"),
        ({"limits": {"tokens_per_minute": True}}, "limits"),
        ({"tags": {"Team": "x"}}, "tags"),
        ({"tags": {"team": "x\x00"}}, "tags"),
        ({"tags": {"team": "x" * 65}}, "tags"),
        ({"tags": {f"t{n}": "x" for n in range(21)}}, "tags"),
        ({"expires_at": past}, "expires_at"),
        ({"expires_at": "2199-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2027-01-01"}, "expires_at"),
        ({"expires_at": 1_900_000_000}, "expires_at"),
        ({"expires_at": "2027-02-30T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2027-01-01T00:00:00Z", "expires_in_days": 5}, "expires_at"),
        ({"created_by": "me"}, "created_by"),
    ]
    made = await api.key("ada")
    for terms, member in wrong:
        for method, path in (("POST", keys), ("PATCH", f"{keys}/{made['id']}")):
            refused = await api.operator.request(method, path, json={"name": "app", **terms})
            assert refused.status_code == 422, terms
            assert refused.json()["errors"][0]["field"].startswith(f"body.{member}"), terms
            assert "pattern" not in refused.json()["detail"]
    kept = (await api.operator.get(f"{keys}/{made['id']}")).json()
    assert (kept["name"], kept["allowed_addresses"]) == ("test", None)


async def test_only_what_is_named_changes(api: MeterApi, keys: str) -> None:
    path = f"{keys}/{(await api.operator.post(keys, json=TERMS)).json()['id']}"

    async def change(**terms: Any) -> dict[str, Any]:
        answer = await api.operator.patch(path, json=terms)
        assert answer.status_code == 200, answer.text
        changed: dict[str, Any] = answer.json()
        return changed

    before = await change()
    changed = await change(name="other")
    assert changed == {**before, "name": "other"}
    changed = await change(budgets={"day": None, "week": "3"}, limits={"tokens_per_minute": 9})
    assert changed["budgets"] == {"day": None, "week": "3.00", "month": None, "total": "20.00"}
    assert changed["limits"]["requests_per_minute"] == 60
    assert changed["limits"]["tokens_per_minute"] == 9
    free: dict[str, Any] = {
        "allowed_models": None,
        "allowed_addresses": None,
        "expires_at": None,
        "budgets": None,
        "limits": None,
        "tags": None,
    }
    changed = await change(**free)
    assert set(changed["budgets"].values()) == set(changed["limits"].values()) == {None}
    assert [changed[name] for name in ("allowed_models", "expires_at", "tags")] == [None, None, {}]
    bad: list[dict[str, Any]] = [{"name": None}, {"scopes": None}, {"scopes": []}, {"name": " "}]
    for terms in bad:
        assert (await api.operator.patch(path, json=terms)).status_code == 422


async def test_a_suspended_key_rests_until_resumed(api: MeterApi, keys: str) -> None:
    key = await api.key("ada")
    path = f"{keys}/{key['id']}"
    for verb, status in (("suspend", "suspended"), ("resume", "active")):
        for _ in range(2):
            answer = await api.operator.post(f"{path}/{verb}")
            assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert await works(api, key["key"]) is (status == "active")


async def test_a_revoked_key_is_never_changed_again(api: MeterApi, keys: str) -> None:
    key = await api.key("ada")
    path = f"{keys}/{key['id']}"
    assert (await api.operator.delete(path)).status_code == 204
    for method, rest in (
        ("PATCH", ""),
        ("POST", "/suspend"),
        ("POST", "/resume"),
        ("POST", "/rotate"),
        ("DELETE", "/previous-secret"),
    ):
        body: object = {} if method != "DELETE" else None
        answer = await api.operator.request(method, path + rest, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await api.operator.get(path)).json()["status"] == "revoked"


async def test_a_rotated_key_has_two_secrets_for_a_while(api: MeterApi, keys: str) -> None:
    first = await api.key("ada")
    path = f"{keys}/{first['id']}"
    answer = await api.operator.post(f"{path}/rotate", json={"overlap_s": 60})
    second = answer.json()
    assert (second["id"], second["prefix"]) == (first["id"], first["prefix"])
    presented = parse(second["key"])
    assert presented is not None and presented.credential_id == first["id"]
    assert second["key"] != first["key"]
    ends_at = datetime.fromisoformat(second["previous_secret_ends_at"])
    assert timedelta(seconds=50) < ends_at - datetime.now(UTC) < timedelta(seconds=61)
    assert await works(api, first["key"]) and await works(api, second["key"])
    # Two live at most: the oldest ends with the next rotation.
    third = (await api.operator.post(f"{path}/rotate")).json()
    assert not await works(api, first["key"])
    assert await works(api, second["key"]) and await works(api, third["key"])
    assert (await api.operator.delete(f"{path}/previous-secret")).status_code == 204
    assert not await works(api, second["key"]) and await works(api, third["key"])
    assert (await api.operator.get(path)).json()["previous_secret_ends_at"] is None
    fourth = (await api.operator.post(f"{path}/rotate", json={"overlap_s": 0})).json()
    assert not await works(api, third["key"]) and await works(api, fourth["key"])
    assert await api.pool.fetchval("SELECT count(*) FROM credential_secrets") == 1
    for overlap in (-1, 2_592_001, 1.5, "60", None):
        refused = await api.operator.post(f"{path}/rotate", json={"overlap_s": overlap})
        assert refused.status_code == 422


async def test_an_old_secret_ends_by_the_database_clock(api: MeterApi, keys: str) -> None:
    first = await api.key("ada")
    await api.operator.post(f"{keys}/{first['id']}/rotate", json={"overlap_s": 60})
    await api.pool.execute(
        "UPDATE credential_secrets SET ends_at = clock_timestamp() WHERE ends_at IS NOT NULL"
    )
    assert not await works(api, first["key"])


async def test_rotations_at_once_leave_two_secrets(api: MeterApi, keys: str) -> None:
    first = await api.key("ada")
    answers = await asyncio.gather(
        *(api.operator.post(f"{keys}/{first['id']}/rotate") for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {200}
    secrets = [first["key"], *(answer.json()["key"] for answer in answers)]
    assert len(set(secrets)) == 9
    living = [await works(api, secret) for secret in secrets]
    assert sum(living) == 2
    assert not living[0]


async def test_an_expired_key_is_not_rotated_but_given_a_later_end(
    api: MeterApi, keys: str
) -> None:
    key = await api.key("ada", expires_in_days=1)
    await api.pool.execute("UPDATE credentials SET expires_at = now() - interval '1 s'")
    path = f"{keys}/{key['id']}"
    assert (await api.operator.get(path)).json()["status"] == "expired"
    assert (await api.operator.post(f"{path}/rotate")).status_code == 409
    await api.operator.patch(path, json={"expires_in_days": 3})
    assert await works(api, key["key"])


async def test_keys_are_found_by_status_and_tag(api: MeterApi, keys: str) -> None:
    plain = await api.key("ada")
    for status in ("suspended", "revoked", "expired"):
        key = await api.key("ada", name=status, tags={"was": status, "odd": "1"})
        if status == "expired":
            await api.pool.execute(
                "UPDATE credentials SET expires_at = now() WHERE id = $1", key["id"]
            )
        elif status == "revoked":
            await api.operator.delete(f"{keys}/{key['id']}")
        else:
            await api.operator.post(f"{keys}/{key['id']}/suspend")
    for status in ("suspended", "revoked", "expired"):
        (row,) = await every_page(api.operator, keys, status=status)
        assert (row["name"], row["status"]) == (status, status)
        (row,) = await every_page(api.operator, keys, tag=f"was={status}")
        assert row["name"] == status
    (row,) = await every_page(api.operator, keys, status="active")
    assert row["id"] == plain["id"]
    assert len(await every_page(api.operator, keys, tag="odd", limit=2)) == 3
    assert await every_page(api.operator, keys, tag="was=") == []
    assert await every_page(api.operator, keys, tag="odd=1", status="active") == []
    for wrong in ({"status": "dead"}, {"tag": "x" * 129}):
        assert (await api.operator.get(keys, params=wrong)).status_code == 422


async def test_spending_counts_from_what_the_books_say(api: MeterApi, books: Books) -> None:
    payer: Payer = await books.payer("ada", 5 * USD)
    settled = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(settled, "0.25")])
    await books.held(payer, USD)
    path = f"{ADMIN}/users/ada/api-keys/{payer.credential_id}"
    budgets = {"day": "3", "month": "9"}
    assert (await api.operator.patch(path, json={"budgets": budgets})).status_code == 200

    async def spending() -> list[tuple[str, str, str, str]]:
        key = (await api.operator.get(path)).json()
        return [(one["period"], one["spent"], one["held"], one["left"]) for one in key["spending"]]

    counted = [("day", "0.25", "1.00", "1.75"), ("month", "0.25", "1.00", "7.75")]
    assert await spending() == counted
    # Another limit of the same budget counts on; none forgets; a new one counts anew.
    await api.operator.patch(path, json={"budgets": {"day": "1"}})
    assert (await spending())[0] == ("day", "0.25", "1.00", "-0.25")
    await api.operator.patch(path, json={"budgets": None})
    assert await spending() == []
    assert await api.pool.fetchval("SELECT count(*) FROM spending") == 0
    await api.operator.patch(path, json={"budgets": budgets})
    assert await spending() == counted


async def test_the_last_use_is_shown(api: MeterApi, keys: str) -> None:
    key = await api.key("ada")
    await api.pool.execute("INSERT INTO credential_uses VALUES ($1, now())", key["id"])
    assert (await api.operator.get(f"{keys}/{key['id']}")).json()["last_used_at"] is not None


async def test_what_is_no_key_is_not_found_as_one(api: MeterApi, keys: str) -> None:
    await api.pool.execute(
        "INSERT INTO credentials (id, account_id, name, kind) VALUES ($1, 'ada', 'x', 'issued')",
        "issuedissuedissu",
    )
    await api.user("bob")
    foreign = await api.key("bob")
    for key_id in ("issuedissuedissu", foreign["id"], "aaaaaaaaaaaaaaaa", "%00", "x"):
        for method, rest in (
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/suspend"),
            ("POST", "/resume"),
            ("POST", "/rotate"),
            ("DELETE", "/previous-secret"),
        ):
            body: object = {} if method in ("PATCH", "POST") else None
            answer = await api.operator.request(method, f"{keys}/{key_id}{rest}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert await works(api, foreign["key"])
    assert (await every_page(api.operator, keys)) == []
