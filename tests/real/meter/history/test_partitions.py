"""Partitions by month on a real Postgres: who may touch them, and what stays of a dropped one."""

import uuid
from datetime import UTC, date, datetime

import asyncpg
import pytest

from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import PROTECTED, USD, Books, observed, refused_by_database, without_protection
from tests.servers import Database

OLD = date(2026, 3, 1)
OLDER = date(2026, 2, 1)
CENT = USD // 100
HISTORY = (
    "ended_hold_rows",
    "usage_rows",
    "settlements",
    "posting_rows",
    "entry_rows",
    "ledger_batches",
)
Owner = asyncpg.Connection


async def partitions(owner: Owner, parent: str) -> list[str]:
    rows = await owner.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = $1::text::regclass ORDER BY 1",
        parent,
    )
    return [row["name"] for row in rows]


async def spend(books: Books, owner: Owner, months: tuple[date, ...]) -> list[uuid.UUID]:
    """One settled, corrected hold, one released and one late in each month; 0.55 USD of each."""
    payer = await books.payer("alice", 50 * USD)
    settlements = PostgresSettlementStore(books.pool)
    settled = []
    for month in months:
        await owner.execute("SELECT make_month($1)", month)
        at = datetime(month.year, month.month, 7, tzinfo=UTC)
        first, released, late = [await books.held(payer, USD // 10, placed_at=at) for _ in range(3)]
        await books.holds.release([released, late])
        await settlements.settle([observed(one, "0.20", started_at=at) for one in (first, late)])
        truth = observed(first, "0.35", started_at=at, source=Source.LOOKUP)
        await settlements.settle([truth])
        settled.append(first)
    return settled


async def test_the_months_to_come_have_partitions(books: Books, owner: Owner) -> None:
    assert await books.pool.fetchval("SELECT prepare_months(5)") == 6
    assert await books.pool.fetchval("SELECT prepare_months(5)") == 6
    for parent in HISTORY:
        assert len(await partitions(owner, parent)) == 7
    payer = await books.payer("alice", USD)
    ordinary, over = [await books.held(payer, USD // 4) for _ in range(2)]
    await PostgresSettlementStore(books.pool).settle([observed(ordinary), observed(over, "0.3")])
    for parent in HISTORY:
        assert await owner.fetchval(f"SELECT count(*) FROM {parent}") > 0
        assert await owner.fetchval(f"SELECT count(*) FROM {parent}_default") == 0


async def test_no_month_is_refused_for_want_of_a_partition(books: Books, owner: Owner) -> None:
    payer = await books.payer("alice", USD)
    at = datetime(2021, 1, 1, tzinfo=UTC)
    hold_id = await books.held(payer, USD, placed_at=at)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.5")])
    assert await owner.fetchval("SELECT count(*) FROM settlements_default") == 1
    assert (await books.verified()).is_ok


async def test_the_service_cannot_reach_around_the_parents(books: Books, owner: Owner) -> None:
    await spend(books, owner, (OLD,))
    names = [name for parent in HISTORY for name in await partitions(owner, parent)]
    assert len(names) >= 25
    for name in names:
        for statement in (
            f"SELECT * FROM {name}",
            f"DELETE FROM {name}",
            f"TRUNCATE {name}",
            f"DROP TABLE {name}",
            f"INSERT INTO {name} DEFAULT VALUES",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await books.pool.execute(statement)
    for call in (
        f"make_month('{OLD}')",
        f"seal_usage('{OLD}')",
        f"seal_entries('{OLD}')",
        "make_immutable('holds'::regclass)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await books.pool.execute(f"SELECT {call}")
    assert await refused_by_database(books.pool, "ALTER TABLE entry_rows DISABLE TRIGGER ALL")


async def test_no_row_of_history_is_changed_by_its_owner_either(books: Books, owner: Owner) -> None:
    """Whatever table is named; rule V11. Only who takes the trigger away can, and shows."""
    await spend(books, owner, (OLD,))
    names = [name for parent in HISTORY for name in await partitions(owner, parent)]
    for name in (*PROTECTED, *names):
        (column,) = await owner.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum = 1",
            name,
        )
        for statement in (
            f"UPDATE {name} SET {column[0]} = {column[0]}",
            f"DELETE FROM {name}",
            f"TRUNCATE {name}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await owner.execute(statement)


async def drop(books: Books, kind: str, before: date) -> list[date]:
    dropped: list[date] = await books.pool.fetchval("SELECT drop_months($1, $2)", kind, before)
    return dropped


async def test_books_agree_after_months_are_dropped(books: Books, owner: Owner) -> None:
    holds = await spend(books, owner, (OLDER, OLD))
    funds, before = await books.funds("alice"), await books.verified()
    assert before.is_ok, before.failures
    assert funds == (50 * USD - 2 * 55 * CENT, 0, 0)
    assert await drop(books, "ledger", date(2026, 4, 1)) == []
    assert await drop(books, "usage", OLD) == [OLDER]
    assert await drop(books, "usage", OLD) == []
    after = await books.verified()
    assert after.is_ok, after.failures
    assert after.totals.usage_records == 3
    assert await drop(books, "ledger", date(2026, 4, 1)) == [OLDER]
    assert await drop(books, "usage", date(2026, 4, 1)) == [OLD]
    assert await drop(books, "ledger", date(2026, 4, 1)) == [OLD]
    after = await books.verified()
    assert after.is_ok, after.failures
    for total in ("provider_cost_picos", "charge_picos", "excess_picos", "entries"):
        assert getattr(after.totals, total) == getattr(before.totals, total)
    assert await books.funds("alice") == funds
    assert await owner.fetchval("SELECT count(*) FROM usage_records") == 0
    # What comes for a hold that nobody remembers is kept, and charged to nobody.
    await PostgresSettlementStore(books.pool).settle(
        [observed(holds[0], "0.9", source=Source.LOOKUP)]
    )
    assert await books.conflicts() == ["hold_not_found"]
    assert await books.funds("alice") == funds


async def test_the_books_go_on_after_a_drop(books: Books, owner: Owner) -> None:
    await spend(books, owner, (OLD,))
    for kind in ("usage", "ledger"):
        assert await drop(books, kind, date(2026, 4, 1)) == [OLD]
    balance = (await books.funds("alice"))[0]
    await LedgerStore(books.pool).post_credit(credit("alice", "later", USD, "paid"))
    assert (await books.funds("alice"))[0] == balance + USD
    assert (await books.verified()).is_ok


async def test_what_was_given_back_in_a_dropped_month_excuses_no_overdraft(
    books: Books, owner: Owner
) -> None:
    """Nor does it count against an excess that came later."""
    await owner.execute("SELECT make_month($1)", OLD)
    payer = await books.payer("alice", USD)
    settlements = PostgresSettlementStore(books.pool)
    first = await books.held(payer, USD, placed_at=datetime(2026, 3, 7, tzinfo=UTC))
    await settlements.settle([observed(first, "1")])
    await settlements.settle([observed(first, "0.4", source=Source.LOOKUP)])
    for kind in ("usage", "ledger"):
        await drop(books, kind, date(2026, 4, 1))
    second = await books.held(payer, 60 * CENT)
    await settlements.settle([observed(second, "0.9")])
    assert await books.funds("alice") == (-30 * CENT, 0, 30 * CENT)
    verification = await books.verified()
    assert verification.is_ok, verification.failures


async def test_this_month_and_the_one_before_stay(books: Books, owner: Owner) -> None:
    payer = await books.payer("alice", USD)
    await PostgresSettlementStore(books.pool).settle([observed(await books.held(payer, USD))])
    last = await owner.fetchval(
        "SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date"
    )
    await owner.execute("SELECT make_month($1)", last)
    for kind in ("usage", "ledger"):
        assert await drop(books, kind, date(2999, 1, 1)) == []
    with pytest.raises(asyncpg.RaiseError):
        await drop(books, "holds", date(2999, 1, 1))
    assert (await books.verified()).totals.usage_records == 1


@pytest.mark.parametrize(
    ("kinds", "change", "invariant"),
    [
        (("usage",), "UPDATE sealed_usage SET charge_picos = charge_picos + 1", "sealed"),
        (("usage",), "DELETE FROM sealed_usage", "sealed"),
        (("usage",), "DELETE FROM dropped_months", "charges"),
        (("usage", "ledger"), "UPDATE sealed_usage SET charge_picos = charge_picos + 1", "sealed"),
        (
            ("usage", "ledger"),
            "UPDATE sealed_entries SET amount_picos = amount_picos + 1",
            "balances",
        ),
        (("usage", "ledger"), "DELETE FROM sealed_entries", "balances"),
        (("usage", "ledger"), "DELETE FROM ledger_batches WHERE position = 2", "chain"),
        (("usage", "ledger"), "UPDATE ledger_batches SET hash = sha256('x')", "chain"),
    ],
)
async def test_what_was_sealed_is_checked(
    books: Books,
    owner: Owner,
    database: Database,
    kinds: tuple[str, ...],
    change: str,
    invariant: str,
) -> None:
    await spend(books, owner, (OLD,))
    for kind in kinds:
        await drop(books, kind, date(2026, 4, 1))
    assert (await books.verified()).is_ok
    await without_protection(database, change)
    found = {failure.invariant for failure in (await books.verified()).failures}
    assert invariant in found
