"""Reconciliation on a real Postgres: drift is told and kept, and nothing is repaired."""

import asyncio
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from meter.errors import Conflict, ProviderUnavailable
from meter.postgres.pool import PostgresConnection, acquire
from meter.reconciliation.drift import ProviderTotal, ReconciliationReport
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import OpenBooks, ReconciliationStore
from meter.settlement.billing_terms import CAUTIOUS
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import MODEL, USD, Books, observed, without_protection
from tests.patience import WAIT_S
from tests.real.meter.ledger.test_checkpoints import spend
from tests.servers import Database

DAY_S = 86_400.0
CENT = USD // 100


class FakeTotals:
    """A provider that has billed so much to the key of this version."""

    def __init__(self, total_picos: int = 0) -> None:
        self.total_picos = total_picos
        self.key_version = 1
        self.is_away = False
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def find_total(self) -> ProviderTotal | None:
        """Return the totals that it states now."""
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise ProviderUnavailable("GET /key failed")
        return ProviderTotal("openrouter", self.key_version, self.total_picos)


class ReconcilerSetup:
    """Books, a provider, and somebody who reconciles them."""

    def __init__(self, books: Books, total_picos: int = 0) -> None:
        self.totals = FakeTotals(total_picos)
        self.registry = CollectorRegistry()
        self.store = ReconciliationStore(books.pool)
        self.reconciler = Reconciler(self.store, self.totals, self.registry)

    async def report(self, takes_new_baseline: bool = False) -> ReconciliationReport:
        """Return the findings of a reconciliation now."""
        return (await self.reconciler.reconcile(takes_new_baseline)).report

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample of the registry."""
        return self.registry.get_sample_value(f"tollkeeper_{name}", labels)


async def lived(books: Books) -> None:
    """Some of everything: settled, excess, corrected, by policy, released, late, live."""
    payer = await books.payer("ada", 20 * USD)
    settlements = PostgresSettlementStore(books.pool)
    held = [await books.held(payer, USD, markup_bps=2_000) for _ in range(7)]
    await settlements.settle([observed(held[0], "0.10"), observed(held[1], "1.50")])
    await settlements.settle([observed(held[0], "0.20", source=Source.LOOKUP)])
    await settlements.end_by_policy(
        [
            PolicyDecision(held[2], PolicyVerdict.CHARGE, Rule.NO_RECORD, None),
            PolicyDecision(held[3], PolicyVerdict.VOID, Rule.NOT_REPORTED, None),
        ]
    )
    await books.holds.release([held[4]])
    await settlements.settle([observed(held[4], "0.05")])
    await settlements.settle([observed(held[5], usage=None)])


async def test_books_that_agree_are_reported_so(books: Books) -> None:
    await lived(books)
    report = await ReconcilerSetup(books).report()
    assert report.is_ok, report
    assert [one.book for one in report.books] == [
        "charges",
        "costs",
        "holds",
        "balances",
        "credits",
    ]
    assert all(one.expected_picos == one.found_picos for one in report.books)
    assert {one.book: one.found_picos for one in report.books}["holds"] == 2 * USD
    assert (report.attention.policy_charges, report.attention.policy_voids) == (1, 1)
    assert report.attention.unknown_holds == 1
    assert report.attention.stuck_holds == 0
    assert (await ReconcilerSetup(books).report()).attention.policy_charges == 0


_DRIFTS = {
    "charges": "UPDATE usage_rows SET charge_picos = charge_picos + 7 WHERE revision = 0"
    " AND kind = 'late'",
    "costs": "UPDATE usage_rows SET provider_cost_picos = provider_cost_picos - 7"
    " WHERE kind = 'late'",
    "holds": "UPDATE accounts SET held_picos = held_picos + 7",
    "balances": "UPDATE accounts SET balance_picos = balance_picos + 7",
    "credits": "DELETE FROM credit_postings",
}


@pytest.mark.parametrize("book", _DRIFTS)
async def test_each_drift_is_reported_and_left_alone(
    books: Books, database: Database, book: str
) -> None:
    await lived(books)
    setup = ReconcilerSetup(books)
    assert (await setup.report()).is_ok
    assert setup.metric("reconciliation_drift_picos", book=book) == 0
    await without_protection(database, _DRIFTS[book])
    for _ in range(2):
        report = await setup.report()
        assert not report.is_ok
        assert report.drifts()[book] == (20 * USD if book == "credits" else 7)
    assert (setup.metric("reconciliation_drift_picos", book=book) or 0) > 0
    kept = await setup.store.list_page(None, 10)
    assert [one.report.is_ok for one in kept] == [False, False, True]
    assert kept[0].report == report


async def test_opposite_differences_do_not_hide_each_other(
    books: Books, database: Database
) -> None:
    for account_id in ("ada", "bob"):
        await books.payer(account_id, USD)
    await without_protection(
        database,
        "UPDATE accounts SET balance_picos = balance_picos + CASE id WHEN 'ada' THEN 5 ELSE -5 END",
    )
    (balances,) = [
        one for one in (await ReconcilerSetup(books).report()).books if one.book == "balances"
    ]
    assert (balances.expected_picos, balances.found_picos) == (2 * USD, 2 * USD)
    assert (balances.drift_picos, balances.differing) == (10, 2)


async def test_the_providers_total_explains_the_ledger(books: Books) -> None:
    payer = await books.payer("ada", 20 * USD)
    settlements = PostgresSettlementStore(books.pool)
    # The key has a history of 100 USD, and one request is under way.
    setup = ReconcilerSetup(books, 100 * USD)
    first = await books.held(payer, USD)
    assert (await setup.report()).provider is not None
    setup.totals.total_picos += 30 * CENT
    assert (await setup.report()).is_ok
    await settlements.settle([observed(first, "0.30")])
    report = await setup.report()
    assert report.is_ok
    assert report.provider is not None
    assert not report.provider.is_new_baseline
    # Billed by the provider, but never booked, and nothing is in flight.
    setup.totals.total_picos += 2 * USD
    for _ in range(2):
        report = await setup.report()
        assert not report.is_ok
        assert report.drifts()["provider"] == 2 * USD
    assert setup.metric("reconciliation_drift_picos", book="provider") == 2 * USD
    explained = await setup.report(takes_new_baseline=True)
    assert explained.is_ok
    assert (await setup.report()).is_ok


async def test_what_other_providers_bill_is_not_in_the_total_of_this_one(books: Books) -> None:
    """Settled, guessed, corrected and in flight, at a price of another provider."""
    payer = await books.payer("ada", 20 * USD)
    setup = ReconcilerSetup(books, 100 * USD)
    mine = await books.held(payer, USD)
    ours = books.price_id
    books.price_id = await books.pool.fetchval(
        "INSERT INTO prices (model_id, provider, prompt_picos, completion_picos, request_picos,"
        " image_picos, web_search_picos, reasoning_picos)"
        " VALUES ($1, 'openai', $2, $2, 0, 0, 0, 0) RETURNING id",
        MODEL,
        CENT,
    )
    assert books.price_id != ours
    settled, guessed, _in_flight = [await books.held(payer, USD) for _ in range(3)]
    assert (await setup.report()).is_ok
    settlements = PostgresSettlementStore(books.pool, terms_of=lambda _: CAUTIOUS)
    await settlements.settle([observed(settled, None, provider="openai")])
    await settlements.end_by_policy(
        [PolicyDecision(guessed, PolicyVerdict.CHARGE, Rule.NO_RECORD, None)]
    )
    await PostgresSettlementStore(books.pool).settle([observed(mine, "0.30")])
    setup.totals.total_picos += 30 * CENT
    report = await setup.report()
    assert report.is_ok, report
    assert report.provider is not None
    cost = report.provider.cost
    assert (cost.ledger_picos, cost.in_flight_picos, cost.provisional_picos) == (30 * CENT, 0, 0)
    # Nothing of it is in flight there either, so that a bill without a booking is drift at once.
    setup.totals.total_picos += CENT
    assert (await setup.report()).drifts()["provider"] == CENT
    assert await books.pool.fetchval("SELECT sum(cost_picos) FROM provider_costs") >= 30 * CENT
    assert (await books.verified()).is_ok


async def test_another_key_has_another_baseline(books: Books) -> None:
    setup = ReconcilerSetup(books, 100 * USD)
    assert (await setup.report()).is_ok
    setup.totals.key_version, setup.totals.total_picos = 2, 0
    report = await setup.report()
    assert report.is_ok
    assert report.provider is not None
    assert report.provider.is_new_baseline


async def test_without_the_provider_the_books_are_compared_all_the_same(books: Books) -> None:
    setup = ReconcilerSetup(books)
    setup.totals.is_away = True
    report = await setup.report()
    assert report.is_ok
    assert (report.provider, report.provider_problem) == (None, "GET /key failed")


async def test_one_meter_at_a_time_reconciles(books: Books) -> None:
    setup = ReconcilerSetup(books)
    async with setup.store.open():
        with pytest.raises(Conflict):
            await ReconcilerSetup(books).report()
    assert (await ReconcilerSetup(books).report()).is_ok


async def test_a_run_that_was_cut_off_leaves_the_books_to_the_next(books: Books) -> None:
    setup = ReconcilerSetup(books)
    setup.totals.gate = asyncio.Event()
    cut_off = asyncio.create_task(setup.report())
    await asyncio.wait_for(setup.totals.asked.wait(), WAIT_S)
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    setup.totals.gate = None
    assert (await setup.report()).is_ok


async def test_two_meters_reconcile_once_a_day(books: Books) -> None:
    await books.payer("ada", USD)
    setups = [ReconcilerSetup(books), ReconcilerSetup(books)]
    waits = await asyncio.gather(*(setup.reconciler.step(DAY_S) for setup in setups))
    assert all(0 < wait_s <= DAY_S for wait_s in waits)
    assert len(await setups[0].store.list_page(None, 10)) == 1
    for setup in setups:
        await setup.reconciler.step(DAY_S)
    assert len(await setups[0].store.list_page(None, 10)) == 1
    # The other one shows it too.
    assert {setup.metric("reconciliation_failures") for setup in setups} == {0}
    assert all(setup.metric("reconciliation_drift_picos", book="charges") == 0 for setup in setups)


async def test_a_daily_run_says_what_a_run_over_all_rows_says(
    books: Books, database: Database
) -> None:
    setup = ReconcilerSetup(books, 100 * USD)
    for day in range(3):
        if day == 1:
            await lived(books)
        elif day == 2:
            await books.payer("bob", USD)
        await setup.reconciler.reconcile_if_due(0.0)
        daily = (await setup.store.list_page(None, 1))[0].report
        assert daily.is_ok, daily
        whole = await setup.report()
        assert daily.books == whole.books
        assert daily.provider is not None
        assert whole.provider is not None
        assert daily.provider.cost == whole.provider.cost
    # What changed since then is found: a charge that nobody was asked for, and a balance.
    await without_protection(
        database,
        "UPDATE accounts SET balance_picos = balance_picos + 7;"
        " UPDATE accounts SET held_picos = held_picos + 5",
    )
    await setup.reconciler.reconcile_if_due(0.0)
    daily = (await setup.store.list_page(None, 1))[0].report
    assert daily.books == (await setup.report()).books
    assert {one.invariant for one in daily.failures} == {"balances", "held"}
    assert daily.drifts()["balances"] == 14


class Interleaved:
    """A connection; somebody else spends before each of its reads."""

    def __init__(self, connection: PostgresConnection, books: Books) -> None:
        self._connection = connection
        self._books = books
        self.reads = 0

    async def _spend(self) -> None:
        self.reads += 1
        await spend(self._books, f"user-{self.reads}")

    async def fetch(self, *arguments: Any, **options: Any) -> list[asyncpg.Record]:
        await self._spend()
        rows: list[asyncpg.Record] = await self._connection.fetch(*arguments, **options)
        return rows

    async def fetchrow(self, *arguments: Any, **options: Any) -> asyncpg.Record | None:
        await self._spend()
        row: asyncpg.Record | None = await self._connection.fetchrow(*arguments, **options)
        return row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_what_is_booked_between_two_reads_is_neither_drift_nor_a_failure(
    books: Books,
) -> None:
    await spend(books, "ada")
    async with acquire(books.pool) as connection:
        interleaved = Interleaved(connection, books)
        opened = OpenBooks(interleaved)  # type: ignore[arg-type]
        read = await opened.read(None, await opened.now(), reads_all=True)
    assert interleaved.reads > 20
    assert read.failures == ()
    assert [one.drift_picos for one in read.comparisons] == [0] * 5


async def test_a_hold_that_nobody_sweeps_is_a_failure(books: Books) -> None:
    payer = await books.payer("ada", 20 * USD)
    await books.held(payer, USD)
    await books.pool.execute("UPDATE holds SET expires_at = now() - interval '2 minutes'")
    report = await ReconcilerSetup(books).report()
    assert [failure.invariant for failure in report.failures] == ["limits"]
    assert report.attention.stale_holds == 1


async def test_unknown_holds_that_nothing_will_end_are_stuck(books: Books) -> None:
    payer = await books.payer("ada", 20 * USD)
    for hold_id in [await books.held(payer, USD) for _ in range(2)]:
        await PostgresSettlementStore(books.pool).settle([observed(hold_id, usage=None)])
    await books.pool.execute(
        "DELETE FROM lookups WHERE hold_id = (SELECT hold_id FROM lookups LIMIT 1)"
    )
    assert (await ReconcilerSetup(books).report()).attention.stuck_holds == 1
    await books.pool.execute("UPDATE lookups SET deadline_at = now() - interval '1 hour'")
    assert (await ReconcilerSetup(books).report()).attention.stuck_holds == 2
