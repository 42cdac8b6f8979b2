"""Settlement on a real Postgres: exactly once, exact to the pico-dollar, balanced."""

import asyncio
import uuid

import pytest

from meter.settlement.billing_terms import BillingTerms
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import NEVER_REACHED, USD, Books, observed


async def test_a_settlement_charges_cost_and_markup(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD, markup_bps=4_000)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.25")])
    assert await books.funds("alice") == (5 * USD - 350_000_000_000, 0, 0)
    assert await books.state(hold_id) == "settled"
    rows = await books.pool.fetch(
        "SELECT ledger_account, amount_picos FROM entries WHERE posting_id = $1 ORDER BY line",
        hold_id,
    )
    assert [tuple(row) for row in rows] == [
        ("customer", -350_000_000_000),
        ("provider", 250_000_000_000),
        ("revenue", 100_000_000_000),
    ]


async def test_the_same_ending_twice_is_settled_once(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    plans = await settlements.settle([observed(hold_id), observed(hold_id)])
    again = await settlements.settle([observed(hold_id)])
    assert [len(plan.ordinary) for plan in (*plans, *again)] == [1, 0, 0]
    assert sum(plan.duplicates for plan in (*plans, *again)) == 2
    assert await books.funds("alice") == (USD - 10**9, 0, 0)


async def test_two_meters_on_one_input_settle_once(books: Books) -> None:
    payer = await books.payer("alice", 100 * USD)
    endings = [observed(await books.held(payer, USD), "0.01") for _ in range(50)]
    meters = [PostgresSettlementStore(books.pool) for _ in range(4)]
    await asyncio.gather(*(meter.settle(endings) for meter in meters))
    await books.settle_parked()
    assert await books.funds("alice") == (100 * USD - 50 * 10**10, 0, 0)
    assert await books.pool.fetchval("SELECT count(*) FROM usage_records") == 50
    assert await books.pool.fetchval("SELECT count(*) FROM settlement_conflicts") == 0


async def test_another_amount_is_kept_and_never_applied(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(hold_id, "0.001")])
    await settlements.settle([observed(hold_id, "0.002")])
    assert await books.funds("alice") == (USD - 10**9, 0, 0)
    kinds = await books.pool.fetch("SELECT hold_id, kind FROM settlement_conflicts")
    assert [tuple(row) for row in kinds] == [(hold_id, "other_amount")]


async def test_a_charge_above_the_hold_is_posted_in_full_and_told_apart(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "1.5")])
    assert await books.funds("alice") == (-USD // 2, 0, USD // 2)
    templates = await books.pool.fetch(
        "SELECT template, sum(amount_picos) FILTER (WHERE ledger_account = 'customer') "
        "FROM postings JOIN entries ON posting_id = postings.id "
        "WHERE hold_id = $1 GROUP BY 1 ORDER BY 1",
        hold_id,
    )
    assert [tuple(row) for row in templates] == [("excess", -USD // 2), ("settlement", -USD)]


async def test_excess_that_other_credit_covers_overdraws_nothing(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "1.5")])
    assert await books.funds("alice") == (5 * USD - 3 * USD // 2, 0, 0)


async def test_without_usage_a_hold_becomes_unknown_and_stays(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(hold_id, usage=None, response_flags="DC")])
    assert await books.state(hold_id) == "unknown"
    assert await books.funds("alice") == (USD, USD, 0)
    await settlements.settle([observed(hold_id, "0.25")])
    assert await books.state(hold_id) == "settled"
    assert await books.funds("alice") == (3 * USD // 4, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {**NEVER_REACHED, "response_flags": "UF", "status_code": 503},
        {**NEVER_REACHED, "reached_provider": True, "response_flags": "UH"},
        {"provider_status": 429, "status_code": 429, "generation_id": None},
        {"provider_status": 402, "status_code": 503, "generation_id": None},
    ],
)
async def test_what_was_never_billed_is_released(books: Books, changes: dict[str, object]) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle(
        [observed(hold_id, None, **{"usage": None, **changes})]
    )
    assert await books.state(hold_id) == "released"
    assert await books.funds("alice") == (USD, 0, 0)


@pytest.mark.parametrize("status", [408, 504, 520, 524, 527])
async def test_who_gave_up_waiting_does_not_know_the_bill(books: Books, status: int) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    ending = observed(hold_id, None, usage=None, provider_status=status, generation_id=None)
    await PostgresSettlementStore(books.pool).settle([ending])
    assert await books.state(hold_id) == "unknown"


async def test_a_zero_cost_without_a_reason_is_not_believed(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0")])
    assert await books.state(hold_id) == "unknown"


async def test_usage_without_the_cost_that_a_provider_names_is_looked_up(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, None)])
    reason = await books.pool.fetchval("SELECT unknown_reason FROM holds WHERE id = $1", hold_id)
    assert reason == "no_cost"


async def test_usage_without_a_cost_is_priced_by_the_catalogue(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    without_costs = BillingTerms(names_costs=False)
    settlements = PostgresSettlementStore(books.pool, terms_of=lambda _: without_costs)
    await settlements.settle([observed(hold_id, None)])
    row = await books.pool.fetchrow("SELECT price_source, charge_picos FROM usage_records")
    assert row is not None
    assert tuple(row) == ("catalogue", 10 * 150_000 + 20 * 600_000)


async def test_an_unheard_of_hold_is_kept_and_never_applied(books: Books) -> None:
    await PostgresSettlementStore(books.pool).settle([observed(uuid.uuid4())])
    assert await books.pool.fetchval("SELECT kind FROM settlement_conflicts") == "hold_not_found"


async def test_holds_and_settlements_under_load_keep_the_books_straight(books: Books) -> None:
    payers = [await books.payer(f"payer{n}", 10 * USD) for n in range(5)]
    settlements = PostgresSettlementStore(books.pool)

    async def live(n: int) -> None:
        payer = payers[n % len(payers)]
        hold_id = await books.held(payer, USD // 10)
        await settlements.settle([observed(hold_id, "0.0123")])

    await asyncio.gather(*(live(n) for n in range(200)))
    await books.settle_parked()
    for payer in payers:
        assert await books.funds(payer.account_id) == (10 * USD - 40 * 12_300_000_000, 0, 0)
    assert await books.pool.fetchval("SELECT sum(amount_picos) FROM entries") == 0
