"""The audit log: a line for every change, in its transaction, for good."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from meter.accounts.account_store import AccountStore
from meter.audit.events import Actor
from meter.identity.keys.key_rights import Administrator
from meter.identity.keys.key_service import KeyService
from meter.identity.keys.key_store import KeyStore
from meter.identity.keys.key_terms import KeyTerms
from meter.identity.keys.key_text import mint
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from tests.books import PEPPER, USD, Books, refused_by_database
from tests.meter_api import ADMIN, MeterApi, every_page

LOG = f"{ADMIN}/audit-log"


async def lines(api: MeterApi, **wanted: Any) -> list[dict[str, Any]]:
    """The log, oldest first."""
    return (await every_page(api.operator, LOG, **wanted))[::-1]


async def test_every_change_is_told(api: MeterApi) -> None:
    operator, users = api.operator, f"{ADMIN}/users"
    await api.user("ada", "5.00")
    await operator.patch(f"{users}/ada", json={"markup_bps": 900, "requests_per_minute": 5})
    await operator.post(f"{users}/ada/suspend")
    await operator.post(f"{users}/ada/resume")
    key = await api.key("ada", tags={"team": "x"})
    path = f"{users}/ada/api-keys/{key['id']}"
    await operator.patch(path, json={"name": "other", "budgets": {"day": "5"}})
    await operator.post(f"{path}/suspend")
    await operator.post(f"{path}/resume")
    await operator.post(f"{path}/rotate", json={"overlap_s": 60})
    await operator.delete(f"{path}/previous-secret")
    await operator.delete(path)
    await operator.put(f"{ADMIN}/plans/gold", json={"name": "Gold", "markup_bps": 1})
    rule = {"applies_to": "everyone", "requests_per_minute": 5}
    await operator.put(f"{ADMIN}/limits/all", json=rule)
    await operator.delete(f"{ADMIN}/limits/all")
    await operator.put(
        f"{ADMIN}/providers/openrouter/key", json={"key": "sk-planted-secret-0001", "force": True}
    )
    told = await lines(api, limit=4)
    assert [line["action"] for line in told] == [
        "user.created",
        "credit.posted",
        "user.changed",
        "user.suspended",
        "user.resumed",
        "key.created",
        "key.changed",
        "key.suspended",
        "key.resumed",
        "key.rotated",
        "key.previous_secret_ended",
        "key.revoked",
        "plan.set",
        "limit.set",
        "limit.removed",
        "provider.key_set",
    ]
    assert {line["actor"] for line in told} == {"operator:operator"}
    by_action = {line["action"]: line for line in told}
    assert by_action["user.changed"]["detail"] == {
        "markup_bps": {"from": None, "to": 900},
        "requests_per_minute": {"from": None, "to": 5},
    }
    assert by_action["key.changed"]["detail"] == {
        "name": {"from": "test", "to": "other"},
        "budget_day": {"from": None, "to": "5.00"},
    }
    assert by_action["key.changed"]["subject"] == f"key:{key['id']}"
    assert by_action["credit.posted"]["detail"]["amount"] == "5.00"
    assert {line["user_id"] for line in told[:12]} == {"ada"}
    assert {line["user_id"] for line in told[12:]} == {None}
    assert key["key"][-49:] not in str(told)
    assert "planted" not in str(told)


async def test_what_changed_nothing_is_not_told(api: MeterApi) -> None:
    await api.user("ada")
    key = await api.key("ada")
    path = f"{ADMIN}/users/ada/api-keys/{key['id']}"
    plan = {"name": "Gold", "markup_bps": 1}
    rule = {"applies_to": "everyone", "requests_per_minute": 5}
    for _ in range(2):
        await api.operator.post(f"{ADMIN}/users/ada/suspend")
        await api.operator.post(f"{path}/suspend")
        await api.operator.patch(path, json={"name": "test"})
        await api.operator.delete(f"{path}/previous-secret")
        await api.operator.put(f"{ADMIN}/plans/gold", json=plan)
        await api.operator.put(f"{ADMIN}/limits/all", json=rule)
        await api.credit("ada", "1.00", "same")
    for _ in range(2):
        await api.operator.delete(path)
    refused = await api.credit("ada", "-99.00", "too-much")
    assert refused.status_code == 409
    told = [line["action"] for line in await lines(api)]
    assert sorted(told) == sorted(set(told))
    assert len(told) == 8


async def test_limit_rules_are_told_in_the_words_of_the_api(api: MeterApi) -> None:
    await api.user("ada")
    rule = {"applies_to": "user", "applies_id": "ada", "counted_per": "user"}
    await api.operator.put(f"{ADMIN}/limits/hers", json={**rule, "requests_per_minute": 5})
    (line,) = await lines(api, action="limit.")
    told = {name: change["to"] for name, change in line["detail"].items()}
    assert told == {**rule, "requests_per_minute": 5, "is_shadow": False}


async def test_lines_are_found_by_user_action_and_actor(api: MeterApi) -> None:
    await api.user("root")
    admin = await api.key("root", scopes=["admin:write"])
    for user in ("ada", "bob"):
        await api.user(user)
        await api.key(user)
    await api.as_key(admin["key"], f"{ADMIN}/users/bob/suspend", "POST")
    assert len(await lines(api, user="ada")) == 2
    assert len(await lines(api, action="user.", limit=2)) == 4
    assert [line["user_id"] for line in await lines(api, action="key.created")] == [
        "root",
        "ada",
        "bob",
    ]
    (line,) = await lines(api, actor=f"key:{admin['id']}")
    assert (line["action"], line["user_id"]) == ("user.suspended", "bob")
    assert await lines(api, action="ke_") == []


async def test_accounts_see_what_is_theirs(api: MeterApi) -> None:
    for user in ("ada", "bob"):
        await api.user(user, "1.00")
        await api.operator.patch(f"{ADMIN}/users/{user}", json={"markup_bps": 777})
    ada = await api.key("ada", scopes=["usage:read", "keys:write"])
    bob = await api.key("bob", name="planted-name-of-bob")
    made = await api.as_key(
        ada["key"], "/api/v1/keys", "POST", {"name": "own", "scopes": ["usage:read"]}
    )
    assert made.status_code == 201
    log = await api.as_key(ada["key"], "/api/v1/audit-log")
    told = log.json()["data"]
    assert [(line["action"], line["actor"]) for line in told] == [
        ("key.created", f"key:{ada['id']}"),
        ("key.created", "administrator"),
        ("credit.posted", "administrator"),
    ]
    # Neither others, nor the terms that we have with this one.
    for hidden in ("planted", bob["id"], "777", "operator"):
        assert hidden not in log.text
    page = await api.as_key(ada["key"], "/api/v1/audit-log", limit=1, action="key.")
    cursor = page.json()["next_cursor"]
    rest = await api.as_key(ada["key"], "/api/v1/audit-log", action="key.", cursor=cursor)
    assert [line["subject"] for line in rest.json()["data"]] == [f"key:{ada['id']}"]
    stolen = await api.as_key(bob["key"], "/api/v1/audit-log", action="key.", cursor=cursor)
    assert stolen.status_code == 400


async def test_nobody_changes_a_line(
    books: Books, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute(
        "INSERT INTO audit_log (actor, action, subject) VALUES ('a', 'key.made', 'key:b')"
    )
    for statement in (
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ):
        assert await refused_by_database(books.pool, statement)
        # Not even the owner, as long as the trigger is on.
        with pytest.raises(asyncpg.PostgresError):
            await owner.execute(statement)
    for statement in ("DROP TABLE audit_log", "ALTER TABLE audit_log DISABLE TRIGGER USER"):
        assert await refused_by_database(books.pool, statement)
    assert await owner.fetchval("SELECT actor FROM audit_log") == "a"


async def test_a_change_without_its_line_is_no_change(
    api: MeterApi, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await api.user("ada")
    key = await api.key("ada")
    await owner.execute("REVOKE INSERT ON audit_log FROM tollkeeper_service")
    accounts, keys = AccountStore(api.pool), KeyService(KeyStore(api.pool), PEPPER)
    somebody, editor = Actor("operator:x"), Administrator()
    for change in (
        accounts.set_suspended(somebody, "ada", True),
        keys.create(somebody, "ada", mint(), KeyTerms("x"), editor),
        keys.revoke(somebody, "ada", key["id"], editor),
        keys.rotate(somebody, "ada", mint(key["id"]), timedelta(), editor),
        LedgerStore(api.pool).post_credit(credit("ada", "k", USD, "x"), somebody),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await change
    user = (await api.operator.get(f"{ADMIN}/users/ada")).json()
    assert (user["is_suspended"], user["balance"]) == (False, "0.00")
    active = await every_page(api.operator, f"{ADMIN}/users/ada/api-keys", status="active")
    assert len(active) == 1
    assert await api.pool.fetchval("SELECT count(*) FROM credential_secrets") == 1
