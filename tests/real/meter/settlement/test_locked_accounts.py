"""A human keeps rows locked: only the settlements that need the rows wait, and none is lost."""

import asyncio
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from chaos.locks import locked
from meter.errors import RowLocked
from meter.ingest.batcher import Batcher
from meter.ingest.metrics import IngestMetrics
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.process.crash_points import CrashPoints, NoCrashPoints
from meter.settlement.parked import ParkedEndings
from meter.settlement.parked_store import ParkedEndingStore
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, observed
from tests.log_entries import entry_of
from tests.servers import Database

# An ending waits for a row only where it cannot pass it over.
pytestmark = pytest.mark.lock_timeouts

CENT = USD // 100


class Killed(BaseException):
    """The process ends here."""


class KillOnce:
    """Ends the process at one point, once."""

    def __init__(self, point: str) -> None:
        self.point = point

    def reach(self, name: str) -> None:
        if name == self.point:
            self.point = ""
            raise Killed


def parked_endings(books: Books, crash_points: CrashPoints = NoCrashPoints()) -> ParkedEndings:  # noqa: B008
    """The task that settles parked endings."""
    store = ParkedEndingStore(books.pool)
    settlements = PostgresSettlementStore(books.pool)
    metrics = IngestMetrics(CollectorRegistry())
    return ParkedEndings(store, settlements, metrics.count, CollectorRegistry(), crash_points)


async def parked(books: Books) -> int:
    """Return the number of parked endings."""
    count: int = await books.pool.fetchval("SELECT count(*) FROM parked_endings")
    return count


async def test_a_locked_account_delays_no_other(books: Books, database: Database) -> None:
    alice = await books.payer("alice", 10 * USD)
    others = [await books.payer(f"other{number}", 10 * USD) for number in range(20)]
    batcher = Batcher(PostgresSettlementStore(books.pool), IngestMetrics(CollectorRegistry()))
    task = batcher.start()
    hers: list[UUID] = []
    again = parked_endings(books)
    for _ in range(4):
        hers += [await books.held(alice, CENT) for _ in range(5)]
        theirs = [await books.held(payer, CENT) for payer in others]
        async with locked(
            database.owner_dsn, "SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE"
        ):
            # Acknowledged, so that the reader of a log file moves on.
            await batcher.settle_all(
                [entry_of(observed(hold_id, "0.001")) for hold_id in (*hers[-5:], *theirs)],
                Source.STREAM,
            )
            for hold_id in theirs:
                assert await books.state(hold_id) == "settled"
            for hold_id in hers[-5:]:
                assert await books.state(hold_id) == "open"
            assert await parked(books) == 5
            # Nothing changes while the row is locked.
            assert await again.step() is None
            assert await parked(books) == 5
        while await parked(books):
            await again.step()
    assert [await books.state(hold_id) for hold_id in hers] == ["settled"] * 20
    assert await books.funds("alice") == (10 * USD - 20 * USD // 1000, 0, 0)
    assert (await books.verified()).failures == ()
    task.cancel()


async def test_a_kill_between_settling_and_forgetting_changes_nothing(
    books: Books, database: Database
) -> None:
    payer = await books.payer("alice", 10 * USD)
    held = [await books.held(payer, CENT) for _ in range(3)]
    settlements = PostgresSettlementStore(books.pool)
    async with locked(database.owner_dsn, "SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE"):
        await settlements.settle([observed(hold_id) for hold_id in held])
    with pytest.raises(Killed):
        await parked_endings(books, KillOnce("meter.before_unpark")).step()
    assert await parked(books) == 3
    after = parked_endings(books)
    while await parked(books):
        await after.step()
    assert await books.funds("alice") == (10 * USD - 3 * USD // 1000, 0, 0)
    assert await books.conflicts() == []
    assert (await books.verified()).failures == ()


async def test_a_locked_hold_delays_no_other(books: Books, database: Database) -> None:
    payer = await books.payer("alice", 10 * USD)
    busy, free = [await books.held(payer, CENT) for _ in range(2)]
    settlements = PostgresSettlementStore(books.pool)
    async with locked(database.owner_dsn, f"SELECT 1 FROM holds WHERE id = '{busy}' FOR UPDATE"):
        changes = await settlements.settle([observed(busy), observed(free)])
        assert [one.hold_id for plan in changes for one in plan.parked] == [busy]
        assert await books.state(free) == "settled"
        assert await parked_endings(books).step() is None
        assert await parked(books) == 1
    await parked_endings(books).step()
    assert await books.state(busy) == "settled"
    assert await parked(books) == 0


async def test_a_row_that_nobody_passes_over_delays_its_own_ending_only(
    books: Books, database: Database
) -> None:
    payer = await books.payer("alice", 10 * USD)
    held = [await books.held(payer, CENT) for _ in range(4)]
    unknown = [observed(hold_id, usage=None) for hold_id in held]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(held[0], usage=None, generation_id=None)])
    async with locked(database.owner_dsn, "SELECT 1 FROM lookups FOR UPDATE"):
        await settlements.settle(unknown)
        states = [await books.state(hold_id) for hold_id in held[1:]]
        assert states == ["unknown"] * 3
        assert await parked(books) == 1
    await parked_endings(books).step()
    assert await parked(books) == 0
    assert await books.pool.fetchval("SELECT bool_and(generation_id IS NOT NULL) FROM lookups")


async def test_one_account_with_very_many_parked_endings_starves_no_other(
    books: Books, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.settlement.parked_store.MOST_OF_ONE_ACCOUNT", 2)
    alice, bob = await books.payer("alice", 10 * USD), await books.payer("bob", 10 * USD)
    hers = [await books.held(alice, CENT) for _ in range(6)]
    his = await books.held(bob, CENT)
    locks = "SELECT 1 FROM accounts WHERE id IN ('alice', 'bob') FOR UPDATE"
    async with locked(database.owner_dsn, locks):
        endings = [observed(hold_id) for hold_id in (*hers, his)]
        await PostgresSettlementStore(books.pool).settle(endings)
    assert await parked_endings(books).step() == 0.0
    assert await books.state(his) == "settled"
    assert await parked(books) == 4


async def test_a_policy_waits_for_its_own_hold_only(books: Books, database: Database) -> None:
    alice, bob = await books.payer("alice", 10 * USD), await books.payer("bob", 10 * USD)
    hers, his = await books.held(alice, CENT), await books.held(bob, CENT)
    settlements = PostgresSettlementStore(books.pool)

    async def decide(hold_id: UUID) -> None:
        await settlements.end_by_policy(
            [PolicyDecision(hold_id, PolicyVerdict.VOID, Rule.NOT_REPORTED, None)]
        )

    async with locked(database.owner_dsn, "SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE"):
        with pytest.raises(RowLocked):
            await decide(hers)
        await decide(his)
    await decide(hers)
    assert [await books.state(hold_id) for hold_id in (hers, his)] == ["expired", "expired"]


async def test_releases_pass_over_what_is_locked(books: Books, database: Database) -> None:
    alice, bob = await books.payer("alice", 10 * USD), await books.payer("bob", 10 * USD)
    hers, his = await books.held(alice, CENT), await books.held(bob, CENT)
    async with locked(database.owner_dsn, "SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE"):
        with pytest.raises(RowLocked):
            await books.holds.release([hers, his])
        assert [await books.state(hold_id) for hold_id in (hers, his)] == ["open", "released"]
    assert await books.holds.release([hers, his]) == 1
    assert await books.funds("alice") == (10 * USD, 0, 0)


async def test_credit_for_a_locked_account_fails_soon_and_alone(
    books: Books, database: Database
) -> None:
    await books.payer("alice", USD)
    await books.payer("bob", USD)
    ledger = LedgerStore(books.pool)
    async with locked(database.owner_dsn, "SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE"):
        hers = asyncio.ensure_future(ledger.post_credit(credit("alice", "k", USD, "gift")))
        await ledger.post_credit(credit("bob", "k", USD, "gift"))
        with pytest.raises(RowLocked):
            await hers
    await ledger.post_credit(credit("alice", "k", USD, "gift"))
    assert await books.funds("alice") == (2 * USD, 0, 0)
