"""Requests with an account's own provider key: the fee is charged, the cost is the account's."""

from decimal import Decimal
from uuid import UUID

import pytest

from meter.holds.hold import HoldPlaced, HoldRefused, Refusal
from meter.money import own_key_markup
from meter.reconciliation.drift import ProviderTotal
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.settlement.policy import PolicyDecision, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import ReportedUsage, Source, TokenCounts
from tests.books import USD, Books, Payer, observed

FREE, FEE = own_key_markup(0), own_key_markup(500)
CENT = USD // 100


@pytest.fixture
async def store(books: Books) -> PostgresSettlementStore:
    """The store that settles."""
    return PostgresSettlementStore(books.pool)


async def held(books: Books, payer: Payer, markup_bps: int, fixed_picos: int = 0) -> UUID:
    placed = await books.holds.place(books.request(payer, fixed_picos, 0, 0, 100, markup_bps))
    assert isinstance(placed, HoldPlaced)
    return placed.hold_id


async def costs(books: Books, hold_id: UUID) -> list[tuple[int, int | None, int]]:
    """Return our debt, the payment of the owner, and the charge, by revision."""
    rows = await books.pool.fetch(
        "SELECT provider_cost_picos, own_key_cost_picos, charge_picos FROM usage_records"
        " WHERE hold_id = $1 ORDER BY revision",
        hold_id,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def test_an_own_key_needs_no_credit_and_takes_none(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", 0)
    hold_id = await held(books, payer, FREE)
    await store.settle([observed(hold_id, "0.25")])
    assert await books.state(hold_id) == "settled"
    assert await books.funds("alice") == (0, 0, 0)
    assert await costs(books, hold_id) == [(0, 25 * CENT, 0)]
    assert await books.postings(hold_id) == []
    again = await store.settle([observed(hold_id, "0.25")])
    assert [one.duplicates for one in again] == [1]
    assert (await books.verified()).is_ok


async def test_the_fee_of_the_plan_is_revenue_and_the_house_owes_nothing(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await held(books, payer, FEE, 2 * CENT)
    await store.settle([observed(hold_id, "0.25")])
    fee = 25 * CENT * 500 // 10_000
    assert await books.funds("alice") == (USD - fee, 0, 0)
    assert await costs(books, hold_id) == [(0, 25 * CENT, fee)]
    entries = await books.pool.fetch(
        "SELECT ledger_account, amount_picos FROM entries WHERE posting_id = $1 ORDER BY line",
        hold_id,
    )
    assert [tuple(row) for row in entries] == [("customer", -fee), ("revenue", fee)]
    assert (await books.verified()).is_ok


async def test_a_fee_above_its_hold_is_an_excess(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await held(books, payer, FEE, CENT)
    await store.settle([observed(hold_id, "1")])
    assert await books.postings(hold_id) == [("settlement", -CENT), ("excess", -4 * CENT)]
    assert (await books.verified()).is_ok


async def test_a_providers_record_corrects_fee_and_cost(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await held(books, payer, FEE, 5 * CENT)
    await store.settle([observed(hold_id, "0.20")])
    await store.settle([observed(hold_id, "0.40", source=Source.LOOKUP)])
    assert await costs(books, hold_id) == [(0, 20 * CENT, CENT), (0, 20 * CENT, CENT)]
    assert await books.funds("alice") == (USD - 2 * CENT, 0, 0)
    free = await held(books, payer, FREE)
    await store.settle([observed(free, "0.20")])
    await store.settle([observed(free, "0.40", source=Source.LOOKUP)])
    assert await costs(books, free) == [(0, 20 * CENT, 0), (0, 20 * CENT, 0)]
    assert (await books.verified()).is_ok


async def test_a_row_of_openrouters_byok_has_fee_and_spend(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", 0)
    hold_id = await held(books, payer, FREE)
    usage = ReportedUsage(TokenCounts(10, 20), Decimal(0), Decimal("0.25"), is_byok=True)
    await store.settle([observed(hold_id, usage=usage)])
    assert await costs(books, hold_id) == [(0, 25 * CENT, 0)]


async def test_a_debt_is_in_the_way_of_credit_only(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", CENT)
    await store.settle([observed(await held(books, payer, FEE, CENT), "1")])
    debt = (-4 * CENT, 0, 4 * CENT)
    assert await books.funds("alice") == debt
    settled, released = [await held(books, payer, FREE) for _ in range(2)]
    assert await books.funds("alice") == debt
    await store.settle([observed(settled, "0.25")])
    await books.holds.release([released])
    assert await books.funds("alice") == debt
    # A model that costs nothing, with our key, and the fee of a plan: both need credit.
    for markup_bps, amount in ((0, 0), (FEE, 1)):
        refused = await books.holds.place(books.request(payer, amount, 0, 0, 100, markup_bps))
        assert isinstance(refused, HoldRefused)
        assert refused.reason is Refusal.INSUFFICIENT
    assert (await books.verified()).is_ok


@pytest.mark.parametrize("status", [401, 402])
async def test_a_refusal_by_the_provider_ends_the_hold_without_a_charge(
    books: Books, store: PostgresSettlementStore, status: int
) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await held(books, payer, FEE, CENT)
    refused = observed(
        hold_id, usage=None, provider_status=status, status_code=401, generation_id=None
    )
    await store.settle([refused])
    assert await books.state(hold_id) == "released"
    assert await books.funds("alice") == (USD, 0, 0)


@pytest.mark.parametrize(("markup_bps", "fixed_picos"), [(FREE, 0), (FEE, CENT)])
async def test_a_guess_charges_no_more_than_the_fee_that_was_held(
    books: Books, store: PostgresSettlementStore, markup_bps: int, fixed_picos: int
) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await held(books, payer, markup_bps, fixed_picos)
    await store.settle([observed(hold_id, usage=None)])
    decision = PolicyDecision(hold_id, Rule.NO_RECORD.verdict, Rule.NO_RECORD, None)
    await store.end_by_policy([decision])
    ((owed, own, charge),) = await costs(books, hold_id)
    assert owed == 0
    assert own is not None and own > 0
    assert charge == 0 if markup_bps == FREE else 0 < charge <= fixed_picos
    assert (await books.verified()).is_ok
    # The provider's total is about our key.
    async with ReconciliationStore(books.pool).open() as opened:
        read = await opened.read(ProviderTotal("openrouter", 1, 0), await opened.now(), True)
    assert read.guesses == ()
    assert (read.cost.provisional_picos, read.cost.provisional_most_picos) == (0, 0)
    assert all(one.drift_picos == 0 for one in read.comparisons)


async def test_usage_by_day_has_what_own_keys_cost(
    books: Books, store: PostgresSettlementStore
) -> None:
    payer = await books.payer("alice", USD)
    await store.settle([observed(await held(books, payer, FREE), "0.25") for _ in range(2)])
    await store.settle([observed(await books.held(payer, USD), "0.10")])
    row = await books.pool.fetchrow(
        "SELECT sum(own_key_cost_picos), sum(provider_cost_picos), sum(charge_picos)"
        " FROM usage_days"
    )
    # Ordinary settlements are added by a task.
    assert row is not None and tuple(row) == (50 * CENT, 0, 0)
