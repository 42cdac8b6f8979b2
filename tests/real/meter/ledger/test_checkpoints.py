"""Verification from checkpoints: nothing since the last one goes unnoticed, and no row is lost."""

import asyncpg
import pytest

from meter.errors import StoreUnavailable
from meter.history.retention import months_before
from meter.ledger.checkpoints import Advance, advance, compare, get_last_batch, snapshot
from meter.ledger.verification import failures_from
from meter.postgres.pool import acquire
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, observed, without_protection
from tests.real.meter.history.test_history import history, lived, this_month, within
from tests.servers import Database

CENT = USD // 100
Owner = asyncpg.Connection


async def run(books: Books, chunk_postings: int = 20_000) -> Advance:
    """Advance, and compare the accounts; both as a reconciliation does."""
    async with acquire(books.pool) as connection:
        advanced = await advance(connection, chunk_postings)
        async with snapshot(connection):
            found = await compare(connection, await get_last_batch(connection))
        return Advance((*advanced.failures, *failures_from(found)), advanced.sealed)


async def spend(books: Books, name: str) -> None:
    """Settle in every way: ordinary, with excess, corrected, by policy, late, and free."""
    payer = await books.payer(name, 20 * USD)
    settlements = PostgresSettlementStore(books.pool)
    held = [await books.held(payer, USD // 10, markup_bps=100) for _ in range(6)]
    await books.holds.release([held[4]])
    await settlements.settle([observed(held[0], "0.05"), observed(held[1], "0.20")])
    await settlements.settle([observed(held[0], "0.06", source=Source.LOOKUP)])
    await settlements.end_by_policy(
        [PolicyDecision(held[2], PolicyVerdict.CHARGE, Rule.NO_RECORD, None)]
    )
    await settlements.settle([observed(held[2], "0.01", source=Source.LOOKUP)])
    await settlements.settle([observed(held[4], "0.02"), observed(held[3], "0.03")])
    await settlements.settle([observed(held[5], "0", source=Source.LOOKUP)])


_SUMS = """
    SELECT account_id, sum(amount_picos) FILTER (WHERE ledger_account = 'customer') AS customer,
           coalesce(sum(amount_picos) FILTER (WHERE ledger_account = 'provider'), 0) AS cost
    FROM entries GROUP BY account_id ORDER BY account_id
"""


async def test_each_run_verifies_and_sums_what_came_since(books: Books) -> None:
    assert await run(books) == Advance((), 1)
    for name in ("ada", "bob"):
        await spend(books, name)
        advanced = await run(books, chunk_postings=3)
        assert advanced.failures == ()
        assert advanced.sealed >= 3
        sealed = await books.pool.fetch(
            "SELECT account_id, customer, cost FROM checkpoint_sums ORDER BY account_id"
        )
        assert sealed == await books.pool.fetch(_SUMS)
        again = await run(books)
        assert again.failures == ()
        assert again.sealed == 0
    assert (await books.verified()).failures == ()


async def test_a_ledger_of_before_is_verified_once_and_its_dropped_months_count(
    books: Books, owner: Owner
) -> None:
    for months_ago in range(9):
        await owner.execute("SELECT make_month($1)", months_before(this_month(), months_ago))
    await lived(books)
    await history(books, usage=2, ledger=4).tend()
    advanced = await run(books, chunk_postings=3)
    assert advanced.failures == ()
    assert advanced.sealed > 1
    assert (await books.verified()).failures == ()
    await spend(books, "bob")
    assert (await run(books)).failures == ()
    await books.pool.execute("UPDATE accounts SET balance_picos = balance_picos + 1")
    assert [one.invariant for one in (await run(books)).failures] == ["balances"]


_CHANGES = {
    "an amount": ("chain", "UPDATE entry_rows SET amount_picos = 2 * amount_picos"),
    "one side": (
        "postings_balance",
        "UPDATE entry_rows SET amount_picos = amount_picos + 1 WHERE ledger_account = 'provider'",
    ),
    "another account": ("entries_belong", "UPDATE entry_rows SET account_id = 'eve'"),
    "a posting gone": ("chain", "DELETE FROM posting_rows WHERE template = 'excess'"),
    "an entry gone": ("chain", "DELETE FROM entry_rows WHERE ledger_account = 'revenue'"),
    "a reason": ("chain", "UPDATE posting_rows SET reason = 'other'"),
    "usage": ("charges", "UPDATE usage_rows SET charge_picos = charge_picos + 1"),
    "no usage": ("charges", "DELETE FROM usage_rows WHERE batch IS NOT NULL"),
    "an ending": ("endings", "UPDATE ended_hold_rows SET state = 'released'"),
    "no ending": ("endings", "DELETE FROM ended_hold_rows"),
    "a second settlement": (
        "one_settlement",
        "UPDATE posting_rows SET template = 'settlement' WHERE template = 'excess'",
    ),
    "tokens": ("chain", "UPDATE settlements SET prompt_tokens = prompt_tokens + 1"),
    "a settlement gone": ("chain", "DELETE FROM settlements"),
    "the order": (
        "chain",
        "UPDATE settlements s SET seq = (SELECT min(o.seq) FROM settlements o)",
    ),
    "another batch": ("chain", "UPDATE settlements SET batch = batch + 1"),
    "a settlement of before": (
        "chain",
        "UPDATE settlements SET batch = 1 WHERE account_id = 'bob'",
    ),
    "a batch gone": (
        "chain",
        "DELETE FROM ledger_batches WHERE number = (SELECT max(number) - 1 FROM ledger_batches)",
    ),
    "the youngest batch gone": (
        "chain",
        "DELETE FROM ledger_batches WHERE number = (SELECT max(number) FROM ledger_batches)",
    ),
    "a head": ("chain", "UPDATE ledger_chains SET hash = sha256('x') WHERE id = 1"),
    "a balance": ("balances", "UPDATE accounts SET balance_picos = balance_picos + 1"),
    "what is held": ("held", "UPDATE accounts SET held_picos = held_picos + 1"),
    "an overdraft": (
        "available",
        "UPDATE accounts SET overdrawn_picos = overdrawn_picos + 9000000000000",
    ),
    "a sealed sum": (
        "chain",
        "UPDATE checkpoint_sums SET customer = customer + 1",
    ),
    "a checkpoint": ("chain", "UPDATE ledger_checkpoints SET last_batch = last_batch + 1"),
    "a checkpoint and its sums": (
        "chain",
        "UPDATE checkpoint_sums SET customer = customer + 1;"
        " UPDATE ledger_checkpoints SET sums_hash = checkpoint_sums_hash()",
    ),
}


async def test_each_change_since_the_checkpoint_is_found(books: Books, database: Database) -> None:
    await spend(books, "ada")
    await run(books)
    await spend(books, "bob")
    payer = await books.payer("cid", USD)
    await books.held(payer, CENT)
    owner = await asyncpg.connect(database.owner_dsn)
    for change, (invariant, statement) in _CHANGES.items():
        broken = owner.transaction()
        await broken.start()
        for table in (
            "settlements",
            "posting_rows",
            "entry_rows",
            "usage_rows",
            "ended_hold_rows",
            "ledger_batches",
            "ledger_checkpoints",
        ):
            await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await owner.execute(statement)
        found = {one.invariant for one in (await advance(owner)).failures}
        found |= {one for one, _ in await compare(owner, await get_last_batch(owner))}
        await broken.rollback()
        assert invariant in found, change
    await owner.close()
    assert (await run(books)).failures == ()


async def test_what_is_older_is_found_by_reading_everything(
    books: Books, database: Database
) -> None:
    await spend(books, "ada")
    await run(books)
    await without_protection(database, "UPDATE settlements SET prompt_tokens = 1")
    assert (await run(books)).failures == ()
    assert [one.invariant for one in (await books.verified()).failures] == ["chain"]


async def test_a_chunk_with_a_failure_is_not_sealed(books: Books, database: Database) -> None:
    await run(books)
    await spend(books, "ada")
    await without_protection(database, "UPDATE settlements SET prompt_tokens = 1")
    for _ in range(2):
        assert "chain" in {one.invariant for one in (await run(books)).failures}
    assert await books.pool.fetchval("SELECT max(last_batch) FROM ledger_checkpoints") == 0


@pytest.mark.lock_timeouts
async def test_a_batch_that_is_under_way_is_in_no_checkpoint_before_it_is_written(
    books: Books, database: Database
) -> None:
    await spend(books, "ada")
    await run(books)
    other = await asyncpg.connect(database.owner_dsn)
    under_way = other.transaction()
    await under_way.start()
    await other.execute(
        "SELECT append_postings(ARRAY[gen_random_uuid()], ARRAY[now()], '{grant}', '{ada}',"
        " ARRAY[NULL::uuid], '{gift}', '{1,1}', '{0,1}', '{customer,grants}', '{5,-5}')"
    )
    await other.execute("UPDATE accounts SET balance_picos = balance_picos + 5 WHERE id = 'ada'")
    # A later number, in another chain, is committed before it.
    await books.payer("bob", USD)
    with pytest.raises(StoreUnavailable):
        await run(books)
    await under_way.commit()
    await other.close()
    assert (await run(books)).failures == ()
    await without_protection(database, "UPDATE accounts SET balance_picos = balance_picos - 5")
    assert [one.invariant for one in (await run(books)).failures] == ["balances"]


async def test_a_month_stays_until_a_checkpoint_has_its_rows(books: Books, owner: Owner) -> None:
    await owner.execute("SELECT make_month($1)", months_before(this_month(), 5))
    await run(books)
    payer = await books.payer("ada", USD)
    hold_id = await books.held(payer, CENT, placed_at=within(5))
    await PostgresSettlementStore(books.pool).settle([observed(hold_id)])
    assert await history(books, usage=2, ledger=2).tend() == []
    await run(books)
    dropped = await history(books, usage=2, ledger=2).tend()
    assert [one.kind for one in dropped] == ["usage", "ledger"]
    assert (await run(books)).failures == ()
    assert (await books.verified()).failures == ()
