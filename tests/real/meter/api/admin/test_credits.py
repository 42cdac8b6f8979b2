"""Credit through the meter API: once per key, exact, never below what is set aside."""

import asyncio
from typing import Any

import pytest

from tests.books import USD, Books, observed
from tests.meter_api import ADMIN, MeterApi


async def verified(api: MeterApi) -> dict[str, Any]:
    answer = await api.operator.get(f"{ADMIN}/ledger/verification")
    verification: dict[str, Any] = answer.json()
    return verification


async def test_credit_is_given_and_taken_back(api: MeterApi) -> None:
    await api.user("ada")
    given = await api.credit("ada", "5.00", "k1", "a grant")
    assert given.status_code == 201
    posted = given.json()
    assert (posted["type"], posted["amount"], posted["balance"]) == ("grant", "5.00", "5.00")
    taken = (await api.credit("ada", "-1.250000000001", "k2")).json()
    assert (taken["type"], taken["balance"]) == ("adjustment", "3.749999999999")
    assert await api.credits("ada") == {
        "balance": "3.749999999999",
        "held": "0.00",
        "available": "3.749999999999",
        "overdrawn": "0.00",
        "is_blocked": False,
    }
    assert (await verified(api))["ok"]


async def test_a_replay_answers_the_first_posting(api: MeterApi) -> None:
    await api.user("ada")
    first = await api.credit("ada", "5.00", "k1")
    await api.credit("ada", "1.00", "k2")
    again = await api.credit("ada", "5.00", "k1")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert (await api.credits("ada"))["balance"] == "6.00"


async def test_equal_amounts_written_differently_are_a_replay(api: MeterApi) -> None:
    await api.user("ada")
    first = await api.credit("ada", "5", "k1")
    again = await api.credit("ada", "5.000", "k1")
    assert (again.status_code, again.json()) == (201, first.json())


@pytest.mark.parametrize(("amount", "reason"), [("5.01", "test"), ("-5.00", "test"), ("5", "x")])
async def test_a_key_used_for_something_else_is_refused(
    api: MeterApi, amount: str, reason: str
) -> None:
    await api.user("ada")
    await api.credit("ada", "5.00", "k1")
    refused = await api.credit("ada", amount, "k1", reason)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    assert (await api.credits("ada"))["balance"] == "5.00"


async def test_the_same_key_means_another_posting_for_another_user(api: MeterApi) -> None:
    for user_id in ("ada", "bob"):
        await api.user(user_id)
        assert (await api.credit(user_id, "5.00", "k1")).status_code == 201
        assert (await api.credits(user_id))["balance"] == "5.00"


async def test_twenty_identical_requests_at_once_post_once(api: MeterApi) -> None:
    await api.user("ada")
    answers = await asyncio.gather(*(api.credit("ada", "5.00", "k1") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer for answer in answers if "idempotent-replayed" in answer.headers]
    assert len(replayed) == 19
    assert (await api.credits("ada"))["balance"] == "5.00"
    assert await api.pool.fetchval("SELECT count(*) FROM postings") == 1


async def test_adjustments_at_once_take_no_more_than_is_there(api: MeterApi) -> None:
    await api.user("ada", "5.00")
    answers = await asyncio.gather(*(api.credit("ada", "-1.00", f"k{n}") for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 15
    refused = [answer.json()["code"] for answer in answers if answer.status_code == 409]
    assert set(refused) == {"insufficient_available"}
    assert (await api.credits("ada"))["balance"] == "0.00"
    assert (await verified(api))["ok"]


async def test_what_is_held_cannot_be_taken_away(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    await books.held(payer, 2 * USD)
    refused = await api.credit("ada", "-3.01", "k1")
    assert (refused.status_code, refused.json()["code"]) == (409, "insufficient_available")
    assert "3.00 USD is available" in refused.json()["detail"]
    assert (await api.credit("ada", "-3.00", "k2")).status_code == 201
    assert (await api.credits("ada"))["available"] == "0.00"


async def test_credit_ends_an_overdraft_as_far_as_it_goes(api: MeterApi, books: Books) -> None:
    from meter.settlement.settlement_store import PostgresSettlementStore

    payer = await books.payer("ada", USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "3.00")])
    funds = await api.credits("ada")
    assert (funds["balance"], funds["overdrawn"]) == ("-2.00", "2.00")
    assert (await api.credit("ada", "-0.01", "k0")).status_code == 409
    await api.credit("ada", "0.50", "k1")
    assert await books.funds("ada") == (-3 * USD // 2, 0, 3 * USD // 2)
    await api.credit("ada", "5.00", "k2")
    assert await books.funds("ada") == (7 * USD // 2, 0, 0)
    verification = await verified(api)
    assert verification["ok"], verification
    assert verification["excess_total"] == "2.00"


async def test_what_is_no_amount_is_refused(api: MeterApi) -> None:
    await api.user("ada")
    wrong: list[object] = [
        *("0", "0.00", "-0", "+1", "1e3", "1.", ".5", "01", " 1", "1 ", "1,00", "NaN", "inf", ""),
        *("0.0000000000001", "9223373", "9" * 70, "1\x00", "\u0661", 5, 5.0, None, True, ["1"]),
    ]
    for amount in wrong:
        refused = await api.operator.post(
            f"{ADMIN}/users/ada/credits",
            json={"amount": amount, "reason": "x"},
            headers={"Idempotency-Key": "k"},
        )
        assert refused.status_code == 422, amount
        assert refused.json()["errors"][0]["field"] == "body.amount"


async def test_a_balance_beyond_a_ledger_entry_is_refused(api: MeterApi) -> None:
    await api.user("ada")
    assert (await api.credit("ada", "9000000", "k1")).status_code == 201
    refused = await api.credit("ada", "9000000", "k2")
    assert (refused.status_code, refused.json()["code"]) == (409, "balance_too_large")


async def test_a_key_is_required_to_post(api: MeterApi) -> None:
    await api.user("ada")
    for key in (None, b"", b"x" * 201, b"a b", b"caf\xe9"):
        refused = await api.operator.post(
            f"{ADMIN}/users/ada/credits",
            json={"amount": "1", "reason": "x"},
            headers=[] if key is None else [(b"Idempotency-Key", key)],
        )
        assert refused.status_code == 400, key
        assert "Idempotency-Key" in refused.json()["detail"]
    assert (await api.credits("ada"))["balance"] == "0.00"


async def test_a_reason_is_required(api: MeterApi) -> None:
    await api.user("ada")
    for reason in ("", " ", "x" * 501, "a\x00b", None):
        refused = await api.operator.post(
            f"{ADMIN}/users/ada/credits",
            json={"amount": "1", "reason": reason},
            headers={"Idempotency-Key": "k"},
        )
        assert refused.status_code == 422, reason
