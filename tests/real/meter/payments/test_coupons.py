"""Coupons give credit once for each account, and codes cannot be guessed."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.meter_api import ADMIN, MeterApi, every_page

REDEEM = "/api/v1/billing/coupons"


async def coupon(api: MeterApi, **terms: Any) -> dict[str, Any]:
    """Make a coupon of ten dollars; returns the answer with its code."""
    body = {"name": "Welcome", "amount": "10.00", "max_redemptions": 5, **terms}
    answer = await api.operator.post(f"{ADMIN}/coupons", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def buyer(api: MeterApi, user_id: str) -> str:
    """A user with a key that may redeem."""
    await api.user(user_id)
    key: str = (await api.key(user_id, scopes=["billing:write"]))["key"]
    return key


async def redeem(api: MeterApi, key: str, code: str) -> httpx2.Response:
    """Redeem a code."""
    return await api.as_key(key, REDEEM, "POST", {"code": code})


async def test_a_code_gives_credit_once_however_it_is_written(api: MeterApi) -> None:
    key, made = await buyer(api, "ada"), await coupon(api)
    redeemed = await redeem(api, key, f"{made['code'][:4].lower()}-{made['code'][4:]}")
    assert (redeemed.status_code, redeemed.json()) == (
        201,
        {"amount": "10.00", "balance": "10.00"},
    )
    again = await redeem(api, key, made["code"])
    assert (again.status_code, again.json()["code"]) == (409, "coupon_redeemed")
    assert (await api.credits("ada"))["balance"] == "10.00"
    (moved,) = await every_page(api.operator, f"{ADMIN}/users/ada/transactions")
    assert (moved["type"], moved["reason"]) == ("grant", "coupon: Welcome")
    assert (await api.operator.get(f"{ADMIN}/ledger/verification")).json()["ok"]


async def test_a_code_may_be_for_some_plans_only(api: MeterApi) -> None:
    key = await buyer(api, "ada")
    body = {"name": "a", "amount": "1", "plans": ["starter", "nowhere"]}
    unknown = await api.operator.post(f"{ADMIN}/coupons", json=body)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_reference")
    made = await coupon(api, plans=["starter", "professional"])
    assert made["plans"] == ["starter", "professional"]
    refused = await redeem(api, key, made["code"])
    assert (refused.status_code, refused.json()["code"]) == (409, "coupon_of_other_plan")
    assert "starter, professional" in refused.json()["detail"]
    moved = await api.operator.patch(f"{ADMIN}/users/ada", json={"plan": "starter"})
    assert moved.status_code == 200, moved.text
    assert (await redeem(api, key, made["code"])).status_code == 201
    assert (await api.credits("ada"))["balance"] == "10.00"


async def test_redeeming_at_once_gives_credit_once(api: MeterApi) -> None:
    key, made = await buyer(api, "ada"), await coupon(api)
    answers = await asyncio.gather(*(redeem(api, key, made["code"]) for _ in range(8)))
    assert sorted(one.status_code for one in answers) == [201] + [409] * 7
    assert (await api.credits("ada"))["balance"] == "10.00"


async def test_of_many_accounts_at_once_only_so_many_redeem(api: MeterApi) -> None:
    made = await coupon(api, max_redemptions=2)
    keys = [await buyer(api, f"user-{number}") for number in range(6)]
    answers = await asyncio.gather(*(redeem(api, key, made["code"]) for key in keys))
    assert sorted(one.status_code for one in answers) == [201] * 2 + [404] * 4
    (listed,) = (await api.operator.get(f"{ADMIN}/coupons")).json()["data"]
    assert listed["redemptions"] == 2
    assert await api.pool.fetchval("SELECT sum(balance_picos)::bigint FROM accounts") == 20 * 10**12


@pytest.mark.parametrize("is_ended", [True, False])
async def test_what_has_ended_or_expired_answers_like_what_never_was(
    api: MeterApi, is_ended: bool
) -> None:
    key = await buyer(api, "ada")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = await coupon(api, expires_at=soon)
    if is_ended:
        ended = await api.operator.post(f"{ADMIN}/coupons/{made['id']}/end")
        assert ended.json()["ended_at"]
    else:
        await api.pool.execute("UPDATE coupons SET expires_at = now() - interval '1 second'")
    refused, unknown = await redeem(api, key, made["code"]), await redeem(api, key, "NO-SUCH-CODE")
    assert (refused.status_code, refused.json()) == (404, unknown.json())
    assert refused.json()["code"] == "coupon_not_valid"
    assert (await api.credits("ada"))["balance"] == "0.00"


async def test_guessing_ends_after_ten_attempts_in_an_hour(api: MeterApi) -> None:
    key, other, made = await buyer(api, "ada"), await buyer(api, "bob"), await coupon(api)
    guesses = await asyncio.gather(*(redeem(api, key, f"GUESS-{number}") for number in range(15)))
    assert sorted(one.status_code for one in guesses) == [404] * 10 + [429] * 5
    right = await redeem(api, key, made["code"])
    assert (right.status_code, right.json()["code"]) == (429, "too_many_attempts")
    assert (await redeem(api, other, made["code"])).status_code == 201
    await api.pool.execute("UPDATE coupon_attempts SET window_began = now() - interval '1 hour'")
    assert (await redeem(api, key, made["code"])).status_code == 201


async def test_codes_are_chosen_once_and_kept_nowhere(api: MeterApi) -> None:
    made = await coupon(api, code="Spring 2027")
    assert made["code"] == "Spring 2027"
    taken = await api.operator.post(
        f"{ADMIN}/coupons", json={"name": "x", "amount": "1.00", "code": "spring-2027"}
    )
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    rows = await api.pool.fetch("SELECT c::text AS text FROM coupons c")
    lines = await api.pool.fetch("SELECT a::text AS text FROM audit_log a")
    assert not any("pring" in row["text"] for row in [*rows, *lines])
    for wrong in ("a", "-abcdef", "x" * 65, "Ünïcode"):
        refused = await api.operator.post(
            f"{ADMIN}/coupons", json={"name": "x", "amount": "1.00", "code": wrong}
        )
        assert refused.status_code == 422


async def test_redeeming_needs_the_scope(api: MeterApi) -> None:
    await api.user("ada")
    key = (await api.key("ada"))["key"]
    refused = await redeem(api, key, "NO-SUCH-CODE")
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
