"""Users of the meter API: made once, found, changed, suspended, paged."""

import asyncio
from typing import Any

import pytest

from tests.books import Books
from tests.meter_api import ADMIN, MeterApi, every_page

USERS = f"{ADMIN}/users"


async def test_a_user_is_made_and_found(api: MeterApi) -> None:
    made = await api.operator.post(USERS, json={"email": "ada@example.com", "name": "Ada"})
    assert made.status_code == 201
    user = made.json()
    assert user["id"].startswith("usr_")
    assert made.headers["location"] == f"{USERS}/{user['id']}"
    assert (user["plan"], user["markup_bps"], user["is_suspended"]) == ("standard", None, False)
    assert (user["balance"], user["held"], user["available"]) == ("0.00", "0.00", "0.00")
    assert user["created_at"].endswith("Z")
    assert (await api.operator.get(made.headers["location"])).json() == user


@pytest.mark.parametrize(
    "second",
    [{"id": "ada", "email": "other@example.com"}, {"id": "bob", "email": "ADA@example.com"}],
)
async def test_an_id_and_an_email_are_taken_once(api: MeterApi, second: dict[str, str]) -> None:
    await api.user("ada")
    refused = await api.operator.post(USERS, json=second)
    assert refused.status_code == 409
    assert refused.json()["code"] == "conflict"


async def test_one_of_many_concurrent_users_with_one_email_is_made(api: MeterApi) -> None:
    answers = await asyncio.gather(
        *(api.operator.post(USERS, json={"email": "ada@example.com"}) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19


async def test_a_wrong_member_is_named(api: MeterApi) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "body.email"),
        ({"email": "no-at-sign"}, "body.email"),
        ({"email": "a@b\x00.example"}, "body.email"),
        ({"email": "a@b.example", "name": "x\x00y"}, "body.name"),
        ({"email": "a@b.example", "name": "\x1b[2J"}, "body.name"),
        ({"email": "a@b.example", "name": " "}, "body.name"),
        ({"email": "a@b.example", "name": "x" * 201}, "body.name"),
        ({"email": "a@b.example", "name": 5}, "body.name"),
        ({"email": "a@b.example", "id": "../etc"}, "body.id"),
        ({"email": "a@b.example", "id": "x\n"}, "body.id"),
        ({"email": "a@b.example", "markup_bps": -1}, "body.markup_bps"),
        ({"email": "a@b.example", "markup_bps": "5"}, "body.markup_bps"),
        ({"email": "a@b.example", "markup_bps": True}, "body.markup_bps"),
        ({"email": "a@b.example", "is_admin": True}, "body.is_admin"),
    ]
    for body, field in wrong:
        refused = await api.operator.post(USERS, json=body)
        assert refused.status_code == 422, body
        problem = refused.json()
        assert problem["code"] == "invalid_request"
        assert [error["field"] for error in problem["errors"]] == [field]
        # A sentence, and no regular expression.
        assert "pattern" not in problem["detail"]


async def test_an_unknown_plan_is_refused(api: MeterApi) -> None:
    body = {"email": "a@b.example", "plan": "gold"}
    assert (await api.operator.post(USERS, json=body)).status_code == 422
    await api.user("ada")
    refused = await api.operator.patch(f"{USERS}/ada", json={"plan": "gold"})
    assert refused.status_code == 422
    assert "gold" in refused.json()["detail"]


async def test_only_what_is_named_changes(api: MeterApi) -> None:
    await api.user("ada")
    path = f"{USERS}/ada"
    changed = await api.operator.patch(path, json={"name": "Ada", "markup_bps": 4000})
    assert (changed.json()["name"], changed.json()["markup_bps"]) == ("Ada", 4000)
    changed = await api.operator.patch(path, json={"plan": "unlimited"})
    assert (changed.json()["name"], changed.json()["plan"]) == ("Ada", "unlimited")
    changed = await api.operator.patch(path, json={"markup_bps": None})
    assert (changed.json()["markup_bps"], changed.json()["name"]) == (None, "Ada")
    assert (await api.operator.patch(path, json={})).json() == changed.json()
    assert (await api.operator.patch(path, json={"plan": None})).status_code == 422


async def test_suspending_and_resuming_can_be_said_twice(api: MeterApi) -> None:
    await api.user("ada")
    for verb, is_suspended in (("suspend", True), ("resume", False)):
        for _ in range(2):
            answer = await api.operator.post(f"{USERS}/ada/{verb}")
            assert answer.status_code == 200
            assert answer.json()["is_suspended"] is is_suspended


async def test_who_does_not_exist_is_not_found_anywhere(api: MeterApi) -> None:
    bodies = {
        ("PATCH", ""): {},
        ("POST", "/api-keys"): {"name": "x"},
        ("POST", "/credits"): {"amount": "1", "reason": "x"},
    }
    routes = [
        *[("GET", rest) for rest in ("", "/api-keys", "/credits", "/transactions", "/usage")],
        *[("POST", rest) for rest in ("/suspend", "/resume")],
        ("DELETE", "/api-keys/aaaaaaaaaaaaaaaa"),
        *bodies,
    ]
    for user_id in ("nobody", "..%2F", "%00", "a" * 600, "%F0%9F%92%A9", "-"):
        for method, rest in routes:
            answer = await api.operator.request(
                method,
                f"{USERS}/{user_id}{rest}",
                json=bodies.get((method, rest)),
                headers={"Idempotency-Key": "k"},
            )
            assert answer.status_code == 404, (method, user_id, rest)
            assert answer.headers["content-type"] == "application/problem+json"


async def test_users_are_paged_newest_first_without_gaps(api: MeterApi) -> None:
    made = [await api.user(f"user{number:02}") for number in range(12)]
    rows = await every_page(api.operator, USERS, limit=5)
    assert [row["id"] for row in rows] == made[::-1]


async def test_one_user_is_found_by_email_in_any_case(api: MeterApi) -> None:
    await api.user("ada")
    await api.user("bob")
    found = await api.operator.get(USERS, params={"email": "ADA@example.COM"})
    assert [row["id"] for row in found.json()["data"]] == ["ada"]
    assert found.json()["next_cursor"] is None


async def test_what_is_held_is_shown(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * 10**12)
    await books.held(payer, 10**12)
    user = (await api.operator.get(f"{USERS}/ada")).json()
    assert (user["balance"], user["held"], user["available"]) == ("5.00", "1.00", "4.00")
