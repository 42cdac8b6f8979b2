"""Attacks that once lost, froze or hid money, on a real Postgres: each must not again."""

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from meter.clock import SystemClock
from meter.errors import ProviderUnavailable, StoreUnavailable
from meter.history.month_store import HistoryStore
from meter.history.retention import History, Retention, months_before
from meter.ingest.batcher import Batcher
from meter.ingest.metrics import IngestMetrics
from meter.ledger.append import write_postings
from meter.ledger.postings import credit
from meter.lookups.pending import ReportedGeneration
from meter.postgres import pool as postgres
from meter.postgres.pool import KEYED_SESSION, acquire, open_pool, queries
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import ReportedUsage, Source
from tests.books import USD, Books, observed, without_protection
from tests.log_entries import entry_of
from tests.real.meter.lookups.test_lookups import AT_ONCE, NO_PATIENCE, LookupSetup, Provider
from tests.servers import Database

_QUERIES: Final = queries("meter.ledger")
_LOCK: Final = "SELECT 1 FROM accounts FOR NO KEY UPDATE"
_MOVE_BALANCE: Final = _QUERIES["move_balance"]

PARENTS = (
    "ended_hold_rows",
    "usage_rows",
    "settlements",
    "posting_rows",
    "entry_rows",
    "ledger_batches",
)
Owner = asyncpg.Connection


async def tend(books: Books, months: int | None = None) -> None:
    """Look after history once, and keep so many months."""
    retention = Retention(months, months)
    store = HistoryStore(books.pool)
    await History(store, retention, CollectorRegistry(), SystemClock()).tend()


async def an_old_month(owner: Owner) -> datetime:
    """A moment in a month that is over, which has its partitions."""
    month = months_before(datetime.now(UTC).date(), 4)
    await owner.execute("SELECT make_month($1)", month)
    return datetime(month.year, month.month, 5, tzinfo=UTC)


async def test_a_month_is_made_that_has_rows_already(books: Books, owner: Owner) -> None:
    """After months without a meter they are in the default partition before it makes the month."""
    month = f"{datetime.now(UTC):%Y_%m}"
    for parent in PARENTS:
        await owner.execute(f"DROP TABLE {parent}_{month}")
    payer = await books.payer("alice", 2 * USD)
    first, over = await books.held(payer, USD // 2), await books.held(payer, USD // 4)
    await PostgresSettlementStore(books.pool).settle([observed(first, "0.5"), observed(over, "1")])
    await tend(books)
    for parent in PARENTS:
        assert await owner.fetchval(f"SELECT count(*) FROM {parent}_default") == 0
        assert await owner.fetchval(f"SELECT count(*) FROM {parent}_{month}") > 0
    for refused in (f"DELETE FROM settlements_{month}", "DELETE FROM settlements_default"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(refused)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await books.pool.fetch(f"SELECT * FROM settlements_{month}")
    again = await books.held(payer, USD // 2)
    await PostgresSettlementStore(books.pool).settle(
        [observed(one, "0.5") for one in (first, again)]
    )
    assert await books.funds("alice") == (0, 0, 0)
    verification = await books.verified()
    assert verification.is_ok, verification.failures


async def test_a_month_stays_while_one_of_its_holds_is_live(books: Books, owner: Owner) -> None:
    """A later end would be in no sealed total, and the books never agree again."""
    at = await an_old_month(owner)
    hold_id = await books.held(await books.payer("alice", USD), USD, placed_at=at)
    await tend(books, 2)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.5")])
    assert (await books.verified()).is_ok
    await tend(books, 2)
    assert await books.pool.fetchval("SELECT count(*) FROM usage_records") == 0
    verification = await books.verified()
    assert verification.is_ok, verification.failures


async def test_a_report_during_a_decision_is_not_forgotten(books: Books) -> None:
    setup = LookupSetup(books, Provider({"gen-9": "0.5"}), NO_PATIENCE, has_reports=True)
    heard = await books.held(await books.payer("bob", USD), USD)
    await setup.settlements.settle([observed(heard)])
    await setup.lookups.note([ReportedGeneration(heard, "gen-1", None)])
    hold_id = await books.held(await books.payer("alice", USD), USD)
    await setup.settlements.settle([observed(hold_id, usage=None, generation_id=None)])
    claim = setup.lookups.claim

    async def reported_after(limit: int) -> object:
        claimed = await claim(limit)
        assert await setup.lookups.note([ReportedGeneration(hold_id, "gen-9", None)]) == 1
        return claimed

    setup.lookups.claim = reported_after  # type: ignore[method-assign, assignment]
    await setup.worker.look_up(1)
    assert await books.state(hold_id) == "expired"
    setup.lookups.claim = claim  # type: ignore[method-assign]
    await setup.due_now()
    await setup.worker.look_up(1)
    assert await books.funds("alice") == (USD // 2, 0, 0)
    await setup.check()


async def test_a_report_is_believed_about_which_generation_it_was(books: Books) -> None:
    """The id that a reply gives itself need not be the one of its record."""
    setup = LookupSetup(books, Provider({"gen-9": "0.5"}), NO_PATIENCE, has_reports=True)
    hold_id = await books.held(await books.payer("alice", USD), USD)
    await setup.settlements.settle([observed(hold_id, usage=None, generation_id="chatcmpl-1")])
    await setup.worker.look_up(1)
    assert [record[1] for record in await books.records(hold_id)] == ["provisional"]
    report = ReportedGeneration(hold_id, "gen-9", None)
    assert [await setup.lookups.note([report]) for _ in range(2)] == [1, 0]
    await setup.worker.look_up(1)
    assert await books.funds("alice") == (USD // 2, 0, 0)
    assert await setup.waiting() == 0
    await setup.check()


async def test_a_record_that_fits_no_ledger_holds_up_no_other(books: Books) -> None:
    terms = LookupTerms(timedelta(0), timedelta(0))
    setup = LookupSetup(books, Provider({"gen-1": "9000000", "gen-2": "0.5"}), terms)
    payer = await books.payer("alice", 2 * USD)
    odd = await books.held(payer, USD, markup_bps=5_000)
    other = await books.held(payer, USD)
    await setup.settlements.settle(
        [observed(odd, usage=None), observed(other, usage=None, generation_id="gen-2")]
    )
    await setup.worker.look_up(10)
    assert (await books.state(odd), await books.state(other)) == ("settled", "settled")
    assert [record[1] for record in await books.records(odd)] == ["provisional"]
    await setup.check()


async def test_what_the_provider_refuses_for_good_is_decided_in_the_end(books: Books) -> None:
    """A refusal looks like an outage, and an outage takes nothing from the patience."""

    class Refusing(Provider):
        async def find_usage(self, provider: str, generation_id: str) -> ReportedUsage | None:
            raise ProviderUnavailable(f"GET /generation answered 400 for {generation_id}")

    setup = LookupSetup(books, Refusing(), LookupTerms(timedelta(0), timedelta(minutes=15)))
    hold_id = await books.held(await books.payer("alice", USD), USD)
    await setup.settlements.settle([observed(hold_id, usage=None)])
    for hours in range(100):
        await setup.worker.look_up(1)
        if hours == 23:
            assert await books.state(hold_id) == "unknown"
        # An hour later; as long as it is taken for an outage, the deadline moves with it.
        await books.pool.execute(
            "UPDATE lookups SET due_at = clock_timestamp(), deadline_at = CASE"
            " WHEN created_at > clock_timestamp() - interval '1 day' THEN deadline_at"
            " ELSE deadline_at - interval '1 hour' END, created_at = created_at - interval '1 hour'"
        )
    assert await books.state(hold_id) == "settled"
    assert await setup.waiting() == 0
    await setup.check()


@pytest.mark.parametrize("cost", ["1E+30", "9000000"])
async def test_a_cost_that_fits_no_ledger_has_the_record_asked_for(books: Books, cost: str) -> None:
    hold_id = await books.held(await books.payer("alice", USD), USD, markup_bps=5_000)
    batcher = Batcher(PostgresSettlementStore(books.pool), IngestMetrics(CollectorRegistry()))
    batcher.start()
    await batcher.put([entry_of(observed(hold_id, cost))], Source.STREAM)
    await batcher.drain()
    assert await books.state(hold_id) == "unknown"
    setup = LookupSetup(books, Provider({"gen-1": "0.5"}), AT_ONCE)
    await setup.due_now()
    await setup.worker.look_up(1)
    assert await books.funds("alice") == (USD // 4, 0, 0)


async def test_a_meter_that_is_stopped_in_a_transaction_lets_the_others_settle(
    books: Books, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an account locked, and a stopped process gives nothing back."""
    hold_id = await books.held(await books.payer("alice", USD), USD)
    monkeypatch.setattr(postgres, "IDLE_IN_TRANSACTION_S", 1.0)
    stopped = await open_pool(database.service_dsn, 1, KEYED_SESSION)

    async def sleep_with_the_account() -> None:
        async with acquire(stopped) as connection, connection.transaction():
            await connection.execute(_LOCK)
            while await books.state(hold_id) == "open":
                with contextlib.suppress(StoreUnavailable):
                    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.5")])
            await connection.execute(_LOCK)

    with pytest.raises(StoreUnavailable):
        await sleep_with_the_account()
    await stopped.close()


async def test_a_look_up_of_a_later_version_is_read(books: Books) -> None:
    setup = LookupSetup(books, Provider({"gen-1": "0.5"}))
    hold_id = await books.held(await books.payer("alice", USD), USD)
    await setup.settlements.settle([observed(hold_id, "0")])
    await books.pool.execute(
        "UPDATE lookups SET observed = jsonb_set(observed, '{usage,tokens,thoughts}', '1')"
        ' || \'{"region": "eu"}\''
    )
    await setup.worker.look_up(1)
    assert await books.state(hold_id) == "settled"


@pytest.mark.parametrize(
    "before", ["SELECT 1", "UPDATE dropped_months SET last_batch = 1000000"], ids=["late", "moved"]
)
@pytest.mark.parametrize("edit", ["amount", "removal"])
async def test_an_edit_of_a_month_that_is_kept_shows_after_a_drop(
    books: Books, owner: Owner, database: Database, before: str, edit: str
) -> None:
    """A late correction of the dropped month makes its last batch a young one."""
    at = await an_old_month(owner)
    payer = await books.payer("alice", 9 * USD)
    old, young = await books.held(payer, USD, placed_at=at), await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(old, "0.5")])
    await settlements.settle([observed(young, "0.5")])
    await settlements.settle([observed(old, "0.6", source=Source.LOOKUP)])
    await tend(books, 2)
    assert (await books.verified()).is_ok
    await without_protection(database, before)
    changes = {
        "amount": f"""
            UPDATE settlements SET customer_picos = 2 * customer_picos,
                provider_picos = 2 * provider_picos WHERE id = '{young}';
            UPDATE accounts SET balance_picos = balance_picos - {USD // 2}""",
        "removal": f"""
            DELETE FROM settlements WHERE id = '{young}';
            UPDATE accounts SET balance_picos = balance_picos + {USD // 2}""",
    }
    await without_protection(database, changes[edit])
    # The sums of the rows are no longer those that the checkpoint sealed either.
    found = {failure.invariant for failure in (await books.verified()).failures}
    assert found == {"chain", "balances"}


async def test_credit_that_is_added_to_a_sealed_month_shows(
    books: Books, owner: Owner, database: Database
) -> None:
    at = await an_old_month(owner)
    await books.payer("alice", 0)
    given = replace(credit("alice", "k", USD, "paid"), booked_at=at)
    async with acquire(books.pool) as connection, connection.transaction():
        await write_postings(connection, [given])
        await connection.execute(_MOVE_BALANCE, "alice", USD, False)
    await tend(books, 2)
    assert (await books.verified()).is_ok
    await without_protection(
        database,
        f"UPDATE sealed_entries SET amount_picos = 2 * {USD} WHERE ledger_account = 'customer';"
        f"UPDATE accounts SET balance_picos = 2 * {USD}",
    )
    assert not (await books.verified()).is_ok
