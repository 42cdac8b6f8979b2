"""Ordinary endings are one row each, say what any ending says, and wait for nobody's chain."""

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import cast

import asyncpg
import pytest

from chaos.books import read_books
from chaos.check_ledger import check_chain
from chaos.stack import ChaosStack
from chaos.verdict import Findings
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.money import add_markup
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, observed
from tests.servers import Database

CENT = USD // 100


@pytest.mark.parametrize("markup_bps", [0, 1, 3_333, 10_000, 1_000_000])
@pytest.mark.parametrize("cost", ["0.000000000001", "0.000000000003", "0.033333333333"])
async def test_the_database_adds_the_markup_that_python_adds(
    books: Books, markup_bps: int, cost: str
) -> None:
    payer = await books.payer("ada", 10 * USD)
    hold_id = await books.held(payer, 9 * USD, markup_bps=markup_bps)
    (changes,) = await PostgresSettlementStore(books.pool).settle([observed(hold_id, cost)])
    assert list(changes.ordinary) == [hold_id]
    charge_picos = add_markup(int(Decimal(cost) * USD), markup_bps)
    assert await books.funds("ada") == (10 * USD - charge_picos, 0, 0)
    assert await books.records(hold_id) == [(0, "settlement", "stream", charge_picos, 0)]
    assert (await books.verified()).failures == ()


async def test_one_row_is_the_ending_the_usage_and_the_posting(books: Books) -> None:
    payer = await books.payer("ada", USD)
    hold_id = await books.held(payer, CENT, markup_bps=1_000)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.005")])
    for table in ("usage_rows", "ended_hold_rows"):
        assert await books.pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    counts = {
        "settlements": 1,
        "postings": 2,
        "entries": 5,
        "usage_records": 1,
        "ended_holds": 1,
    }
    for relation, rows in counts.items():
        assert await books.pool.fetchval(f"SELECT count(*) FROM {relation}") == rows
    assert await books.state(hold_id) == "settled"
    listed = await LedgerStore(books.pool).list_transactions("ada", None, 10)
    assert [one.amount_picos for one in listed] == [-55 * CENT // 100, USD]


async def test_what_is_not_ordinary_is_settled_beside_what_is(books: Books) -> None:
    payer = await books.payer("ada", 10 * USD)
    held = [await books.held(payer, CENT) for _ in range(4)]
    settlements = PostgresSettlementStore(books.pool)
    committed = await settlements.settle(
        [
            observed(held[0], "0.005"),
            observed(held[1], "0.05"),
            observed(held[2], usage=None),
            observed(held[3], "0.005", source=Source.LOOKUP),
        ]
    )
    assert [(len(one.ordinary), len(one.bookings), len(one.unknown)) for one in committed] == [
        (1, 0, 0),
        (0, 2, 1),
    ]
    await settlements.settle([observed(held[0], "0.006", source=Source.LOOKUP)])
    assert await books.funds("ada") == (10 * USD - 61 * CENT // 10, CENT, 0)
    assert (await books.verified()).failures == ()


async def test_nobody_waits_for_a_writer_of_the_ledger(books: Books, database: Database) -> None:
    payer = await books.payer("ada", USD)
    held = [await books.held(payer, CENT) for _ in range(2)]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(held[0])])
    other = await asyncpg.connect(database.owner_dsn)
    async with other.transaction():
        taken = await other.fetchval("SELECT (take_chain()).id")
        await settlements.settle([observed(held[1])])
        await LedgerStore(books.pool).post_credit(credit("ada", "k", USD, "gift"))
        chains = await books.pool.fetch("SELECT DISTINCT chain FROM ledger_batches")
        assert {row["chain"] for row in chains} == {1, 2}
        assert taken == 1
    await other.close()
    assert (await books.verified()).failures == ()


async def test_a_checker_of_its_own_finds_the_same_hashes(books: Books, database: Database) -> None:
    payers = [await books.payer(f"payer{n}", USD) for n in range(3)]
    settlements = PostgresSettlementStore(books.pool)
    held = [await books.held(payer, CENT, markup_bps=50) for payer in payers for _ in range(5)]
    await asyncio.gather(*(settlements.settle([observed(one, "0.002")]) for one in held[:10]))
    await books.settle_parked()
    await settlements.settle([observed(one, "0.02") for one in held[10:]])

    async def broken() -> tuple[str, ...]:
        findings = Findings()
        stack = cast(ChaosStack, SimpleNamespace(dsn=lambda: database.owner_dsn))
        check_chain(await read_books(stack), findings)
        return tuple(str(one) for one in findings.failures)

    assert await broken() == ()
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("ALTER TABLE settlements DISABLE TRIGGER USER")
    await owner.execute("UPDATE settlements SET latency_ms = latency_ms + 1")
    await owner.close()
    assert await broken() != ()
