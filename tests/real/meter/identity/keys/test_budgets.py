"""Budgets and concurrent requests on a real Postgres: exact, whoever asks at the same time."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from meter.holds.hold import HoldAnswer, HoldPlaced, HoldRefused, Refusal
from meter.holds.hold_store import PostgresHolds
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import LIFETIME, USD, Books, Payer, observed

PERIODS = ("day", "week", "month", "total")


async def allot(books: Books, key_id: str, **usd: int | None) -> None:
    """Give a key budgets, in whole dollars; None takes one away. As the API does it."""
    async with books.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT 1 FROM accounts a JOIN credentials c ON c.account_id = a.id WHERE c.id = $1"
            " FOR NO KEY UPDATE OF a",
            key_id,
        )
        for period, most in usd.items():
            await connection.execute(
                f"UPDATE credentials SET budget_{period}_picos = $2 WHERE id = $1",
                key_id,
                None if most is None else most * USD,
            )
            await connection.execute(
                "SELECT count_spending($1, $2, $3)", key_id, period, most is not None
            )


async def spending(books: Books, subject: str) -> dict[str, tuple[int, int]]:
    """Return what is spent and held of each budget, in whole dollars."""
    rows = await books.pool.fetch(
        "SELECT period, sum(spent_picos)::bigint AS spent, sum(held_picos)::bigint AS held"
        " FROM spending WHERE subject = $1 GROUP BY period",
        subject,
    )
    return {row["period"]: (row["spent"] // USD, row["held"] // USD) for row in rows}


async def add_pass(books: Books, payer: Payer, usd: int | None) -> str:
    pass_id = "pass-of-" + payer.account_id + "-0123456789"
    await books.pool.execute(
        "INSERT INTO passes (id, credential_id, account_id, scopes, budget_picos, created_by,"
        " expires_at) VALUES ($1, $2, $3, '{inference}', $4, 'test', now() + interval '1 hour')",
        pass_id,
        payer.credential_id,
        payer.account_id,
        None if usd is None else usd * USD,
    )
    return pass_id


def placed(answers: list[HoldAnswer]) -> int:
    return sum(isinstance(answer, HoldPlaced) for answer in answers)


@pytest.mark.parametrize("period", PERIODS)
async def test_a_budget_is_never_passed_by_many_at_once(books: Books, period: str) -> None:
    payer = await books.payer("alice", 100 * USD)
    await allot(books, payer.credential_id, **{period: 7})
    other = PostgresHolds(books.pool, LIFETIME)
    answers = await asyncio.gather(
        *(
            store.place(books.request(payer, USD))
            for _ in range(40)
            for store in (books.holds, other)
        )
    )
    await other.close()
    assert placed(answers) == 7
    assert {a.reason for a in answers if isinstance(a, HoldRefused)} == {Refusal.BUDGET_EXCEEDED}
    assert await spending(books, payer.credential_id) == {period: (0, 7)}
    assert await books.funds("alice") == (100 * USD, 7 * USD, 0)


async def test_a_budget_bounds_a_reply_without_a_limit(books: Books) -> None:
    payer = await books.payer("alice", 100 * USD)
    await allot(books, payer.credential_id, day=2)
    asked = books.request(payer, 0, per_token_picos=USD, min_tokens=1, max_tokens=50)
    answer = await books.holds.place(asked)
    assert isinstance(answer, HoldPlaced) and answer.max_tokens == 2
    refused = await books.holds.place(replace(asked, hold_id=books.request(payer, 0).hold_id))
    assert refused == HoldRefused(Refusal.BUDGET_EXCEEDED, USD, 0)


async def test_what_ends_a_hold_moves_its_budgets(books: Books) -> None:
    payer = await books.payer("alice", 100 * USD)
    await allot(books, payer.credential_id, day=10, total=10)
    settled, released, _ = [await books.held(payer, 3 * USD) for _ in range(3)]
    assert await spending(books, payer.credential_id) == {"day": (0, 9), "total": (0, 9)}
    await PostgresSettlementStore(books.pool).settle([observed(settled, "2")])
    await books.holds.release([released])
    assert await spending(books, payer.credential_id) == {"day": (2, 3), "total": (2, 3)}
    assert isinstance(await books.holds.place(books.request(payer, 5 * USD)), HoldPlaced)
    assert isinstance(await books.holds.place(books.request(payer, USD)), HoldRefused)


async def test_a_budget_given_later_counts_what_was_spent_before(books: Books) -> None:
    payer = await books.payer("alice", 100 * USD)
    spent, live = [await books.held(payer, 3 * USD) for _ in range(2)]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(spent, "3")])
    await allot(books, payer.credential_id, day=4, week=20)
    assert await spending(books, payer.credential_id) == {"day": (3, 3), "week": (3, 3)}
    refused = await books.holds.place(books.request(payer, USD))
    assert refused == HoldRefused(Refusal.BUDGET_EXCEEDED, USD, -2 * USD)
    await settlements.settle([observed(live, "0.5")])
    await allot(books, payer.credential_id, day=None)
    assert await spending(books, payer.credential_id) == {"week": (3, 0)}
    assert isinstance(await books.holds.place(books.request(payer, USD)), HoldPlaced)


async def test_a_budget_given_while_holds_come_and_go_counts_each_once(books: Books) -> None:
    payer = await books.payer("alice", 1_000 * USD)
    settlements = PostgresSettlementStore(books.pool)

    async def come_and_go() -> None:
        hold = await books.held(payer, 2 * USD)
        await asyncio.sleep(0)
        await settlements.settle([observed(hold, "1")])

    async def change_often() -> None:
        for most in (500, None, 600, None, 700):
            await allot(books, payer.credential_id, day=most)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(come_and_go() for _ in range(60)), change_often())
    await books.settle_parked()
    assert await spending(books, payer.credential_id) == {"day": (60, 0)}


async def test_a_hold_counts_in_the_period_in_which_it_was_placed(books: Books) -> None:
    payer = await books.payer("alice", 100 * USD)
    await allot(books, payer.credential_id, day=5)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await books.pool.execute(
        "UPDATE spending SET starts_on = starts_on - 1, held_picos = $1", 5 * USD
    )
    old = await books.held(payer, 5 * USD, placed_at=yesterday)
    await books.pool.execute("DELETE FROM spending WHERE starts_on = current_date")
    await PostgresSettlementStore(books.pool).settle([observed(old, "4")])
    rows = await books.pool.fetch("SELECT spent_picos, held_picos FROM spending")
    assert [tuple(row) for row in rows] == [(4 * USD, 0)]
    assert isinstance(await books.holds.place(books.request(payer, 5 * USD)), HoldPlaced)


async def test_a_pass_has_a_budget_of_its_own_beside_its_keys(books: Books) -> None:
    payer = await books.payer("alice", 100 * USD)
    await allot(books, payer.credential_id, total=5)
    pass_id = await add_pass(books, payer, 2)
    by_pass = [
        await books.holds.place(replace(books.request(payer, USD), pass_id=pass_id))
        for _ in range(3)
    ]
    assert placed(by_pass) == 2
    assert await spending(books, pass_id) == {"total": (0, 2)}
    assert await spending(books, payer.credential_id) == {"total": (0, 2)}
    assert placed([await books.holds.place(books.request(payer, USD)) for _ in range(4)]) == 3


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE passes SET revoked_at = now()",
        "UPDATE passes SET expires_at = now()",
        "UPDATE passes SET credential_id = (SELECT min(id) FROM credentials c"
        " WHERE c.account_id = 'bob')",
        "DELETE FROM passes",
        "UPDATE credentials SET suspended_at = now()",
        "UPDATE credentials SET revoked_at = now()",
        "UPDATE credentials SET expires_at = now()",
    ],
)
async def test_what_ended_holds_nothing(books: Books, ending: str) -> None:
    payer = await books.payer("alice", 10 * USD)
    await books.payer("bob", 10 * USD)
    asked = replace(books.request(payer, USD), pass_id=await add_pass(books, payer, None))
    assert isinstance(await books.holds.place(asked), HoldPlaced)
    await books.pool.execute(ending)
    again = replace(asked, hold_id=books.request(payer, 0).hold_id)
    answer = await books.holds.place(again)
    assert isinstance(answer, HoldRefused) and answer.reason is Refusal.CREDENTIAL_ENDED


@pytest.mark.parametrize(("account", "key"), [(3, None), (None, 3), (5, 3), (3, 5)])
async def test_no_more_run_at_once_than_may(
    books: Books, account: int | None, key: int | None
) -> None:
    payer = await books.payer("alice", 100 * USD)
    other = PostgresHolds(books.pool, LIFETIME)

    def asked() -> "asyncio.Future[HoldAnswer]":
        request = books.request(payer, USD)
        store = other if request.hold_id.int % 2 else books.holds
        return asyncio.ensure_future(
            store.place(replace(request, account_concurrent=account, key_concurrent=key))
        )

    answers = await asyncio.gather(*(asked() for _ in range(50)))
    held = [answer.hold_id for answer in answers if isinstance(answer, HoldPlaced)]
    assert len(held) == 3
    reasons = {a.reason for a in answers if isinstance(a, HoldRefused)}
    assert reasons == {Refusal.TOO_MANY_CONCURRENT}
    await books.holds.release(held[:1])
    await PostgresSettlementStore(books.pool).settle([observed(held[1], "1")])
    answers = await asyncio.gather(*(asked() for _ in range(9)))
    assert placed(answers) == 2
    await other.close()
