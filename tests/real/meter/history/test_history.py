"""History by month: cheap to write beside, dropped to sealed totals, and the books still agree."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from meter.clock import SystemClock
from meter.errors import StoreUnavailable
from meter.history.month_store import HistoryStore
from meter.history.retention import History, Retention, months_before
from meter.ledger import whole_books
from meter.ledger.checkpoints import snapshot
from meter.ledger.usage_days import UsageDays
from meter.postgres.pool import KEYED_SESSION, acquire, open_pool
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, observed
from tests.fakes import NoProviderTotals
from tests.meter_api import ADMIN, MeterApi
from tests.patience import until
from tests.servers import Database, is_lock_awaited

CENT = USD // 100
OLD_MONTHS = 24
WORKER = "worker"
WORKING_SESSION = {**KEYED_SESSION, "application_name": WORKER}
_WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"


def this_month() -> date:
    """The first of this month, UTC."""
    return datetime.now(UTC).date().replace(day=1)


def within(months_ago: int) -> datetime:
    """A moment in the month so many months ago, never one to come."""
    first = months_before(this_month(), months_ago)
    return min(datetime(first.year, first.month, 3, 12, tzinfo=UTC), datetime.now(UTC))


@pytest_asyncio.fixture
async def owner(
    owner: "asyncpg.Connection[asyncpg.Record]",
) -> "asyncpg.Connection[asyncpg.Record]":
    """The owner, who alone may make months of the past; the service only those to come."""
    for months_ago in range(OLD_MONTHS + 1):
        await owner.execute("SELECT make_month($1)", months_before(this_month(), months_ago))
    return owner


def history(books: Books, usage: int | None = None, ledger: int | None = None) -> History:
    """The task with this retention."""
    return History(
        HistoryStore(books.pool), Retention(usage, ledger), CollectorRegistry(), SystemClock()
    )


async def lived(books: Books) -> None:
    """Settlements, excess, corrections and policy in each of some months; a live hold now."""
    payer = await books.payer("ada", 100 * USD)
    settlements = PostgresSettlementStore(books.pool)
    for months_ago in (7, 6, 5, 4, 3, 2, 1, 0):
        held = [
            await books.held(payer, USD, markup_bps=2_000, placed_at=within(months_ago))
            for _ in range(4)
        ]
        await settlements.settle([observed(held[0], "0.20"), observed(held[1], "1.50")])
        await settlements.settle([observed(held[0], "0.10", source=Source.LOOKUP)])
        await settlements.end_by_policy(
            [
                PolicyDecision(held[2], PolicyVerdict.CHARGE, Rule.NO_RECORD, None),
                PolicyDecision(held[3], PolicyVerdict.VOID, Rule.NOT_REPORTED, None),
            ]
        )
    await books.held(payer, USD)


@pytest.mark.usefixtures("owner")
async def test_dropping_months_changes_no_sum_and_no_verdict(books: Books, api: MeterApi) -> None:
    await lived(books)
    before = await books.verified()
    assert before.is_ok, before.failures
    funds = await books.funds("ada")
    year = {"from": f"{within(7):%Y-%m-%d}", "group_by": "model"}
    used = (await api.operator.get(f"{ADMIN}/users/ada/usage", params=year)).json()["data"]
    assert used[0]["requests"] == 24
    dropped = await history(books, usage=2, ledger=4).tend()
    assert [(one.kind, one.month) for one in dropped[-3:]] == [
        ("ledger", months_before(this_month(), months_ago)) for months_ago in (7, 6, 5)
    ]
    # The partitions of the past were empty but for those.
    assert len(dropped) == OLD_MONTHS - 2 + OLD_MONTHS - 4
    after = await books.verified()
    assert after.is_ok, after.failures
    assert await books.funds("ada") == funds
    same = ("provider_cost_picos", "charge_picos", "excess_picos", "entries", "open_holds")
    assert [getattr(after.totals, name) for name in same] == [
        getattr(before.totals, name) for name in same
    ]
    assert after.totals.usage_records < before.totals.usage_records
    assert after.head == before.head
    await UsageDays(books.pool).add_up()
    usage = await api.operator.get(f"{ADMIN}/users/ada/usage", params=year)
    assert usage.json()["data"] == used
    shown = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert {"kind": "ledger", "month": f"{within(5):%Y-%m}"} in shown["dropped_months"]
    reconciler = Reconciler(
        ReconciliationStore(books.pool), NoProviderTotals(), CollectorRegistry()
    )
    report = (await reconciler.reconcile()).report
    assert report.is_ok, report


@pytest.mark.usefixtures("owner")
async def test_life_goes_on_after_a_drop(books: Books) -> None:
    await lived(books)
    await history(books, usage=2, ledger=2).tend()
    payer = await books.payer("bob", USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.20")])
    assert (await books.verified()).is_ok
    assert await history(books, usage=2, ledger=2).tend() == []


@pytest.mark.usefixtures("owner")
async def test_months_are_listed_kept_and_dropped(books: Books, api: MeterApi) -> None:
    await history(books, usage=2, ledger=3).tend()
    rows = (await api.operator.get(f"{ADMIN}/ledger/months")).json()["data"]
    kept = {(row["kind"], row["month"]) for row in rows if row["is_kept"]}
    ahead = f"{this_month() + timedelta(days=93):%Y-%m}"
    assert {("usage", f"{within(2):%Y-%m}"), ("ledger", f"{within(3):%Y-%m}")} <= kept
    assert {("usage", ahead), ("ledger", ahead)} <= kept
    gone = [row for row in rows if not row["is_kept"]]
    assert {row["month"] for row in gone if row["kind"] == "ledger"} == {
        f"{within(months_ago):%Y-%m}" for months_ago in range(4, OLD_MONTHS + 1)
    }
    assert all(row["dropped_at"] and row["bytes_on_disk"] is None for row in gone)


@pytest.mark.lock_timeouts
@pytest.mark.parametrize(
    "work",
    [
        "LOCK TABLE settlements IN ACCESS SHARE MODE",
        # Somebody settles a hold of a month that is about to go.
        "INSERT INTO ended_hold_rows SELECT gen_random_uuid(), now() - interval '5 months', 'ada',"
        " 'c', 'm', 'e', 1, 0, 0, 0, 0, NULL, 'released', 'taken_back'",
    ],
)
async def test_a_change_of_months_gives_way_to_whoever_works(
    books: Books, owner: "asyncpg.Connection[asyncpg.Record]", work: str
) -> None:
    async with owner.transaction():
        await owner.execute(work)
        with pytest.raises(StoreUnavailable):
            await history(books, usage=2).tend()
    assert await history(books, usage=2).tend() != []


@pytest.mark.lock_timeouts
@pytest.mark.usefixtures("owner")
async def test_a_month_is_not_dropped_from_under_a_comparison(books: Books) -> None:
    await lived(books)
    async with acquire(books.pool) as connection, snapshot(connection):
        with pytest.raises(StoreUnavailable):
            await history(books, usage=2).tend()
        # Nobody else is kept waiting by it.
        await books.payer("bob", USD)
    assert await history(books, usage=2).tend() != []
    assert (await books.verified()).is_ok


@pytest.mark.usefixtures("owner")
async def test_a_verification_says_that_a_month_was_dropped_meanwhile(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lived(books)
    read = whole_books.Reading.read_requests

    async def drop_and_read(reading: whole_books.Reading) -> None:
        assert await history(books, usage=2).tend() != []
        await read(reading)

    with monkeypatch.context() as patch:
        patch.setattr(whole_books.Reading, "read_requests", drop_and_read)
        with pytest.raises(StoreUnavailable, match="verify again"):
            await books.verified()
    assert (await books.verified()).is_ok


_LATE_RECORD = """
    INSERT INTO usage_rows (
        hold_id, placed_at, account_id, credential_id, model_id, endpoint, started_at,
        prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
        provider_cost_picos, charge_picos, excess_picos, markup_bps, price_id, price_source,
        latency_ms, status_code, response_flags, is_streaming, source)
    VALUES (gen_random_uuid(), $1, 'ada', 'c', 'm', 'e', $1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1,
            'provider', 1, 200, '', false, 'file')
"""


async def test_what_is_written_at_the_last_moment_is_sealed(
    books: Books, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await history(books, usage=6).tend()
    month = months_before(this_month(), 6)
    async with owner.transaction():
        await owner.execute(_LATE_RECORD, within(6))
        dropping = asyncio.create_task(HistoryStore(books.pool).drop_month("usage", month))
        await until(lambda: is_lock_awaited(owner), "the drop waits for the record")
        assert not dropping.done()
    assert await dropping
    sealed = "SELECT requests FROM sealed_usage WHERE month = $1"
    assert await books.pool.fetchval(sealed, month) == 1


@pytest.mark.usefixtures("owner")
async def test_two_meters_tend_the_same_history(books: Books) -> None:
    tasks = [history(books, usage=2) for _ in range(2)]
    found = await asyncio.gather(*(task.tend() for task in tasks), return_exceptions=True)
    months = [one.month for dropped in found if isinstance(dropped, list) for one in dropped]
    assert len(months) == len(set(months))
    for task in tasks:
        assert await task.tend() is not None
    assert (await books.verified()).is_ok


async def _reads(owner: "asyncpg.Connection[asyncpg.Record]") -> dict[str, tuple[int, int]]:
    """Scans of all rows and by index so far of each partition of the past."""
    # A session is counted when it has ended; what this one itself did is counted late.
    while await owner.fetchval(_WORKERS, WORKER):  # noqa: ASYNC110  # it is another process
        await asyncio.sleep(0.01)
    await owner.execute("SELECT pg_stat_force_next_flush()")
    await owner.execute("SELECT pg_stat_clear_snapshot()")
    rows = await owner.fetch(
        "SELECT relname, seq_scan, coalesce(idx_scan, 0) AS idx_scan FROM pg_stat_user_tables"
        " WHERE relname ~ '_[0-9]{4}_[0-9]{2}$' AND right(relname, 7) < to_char(now(), 'YYYY_MM')"
    )
    return {row["relname"]: (row["seq_scan"], row["idx_scan"]) for row in rows}


async def _work(database: Database, payer_id: str) -> None:
    """All that requests and settlements do, in sessions that end, so that their reads count."""
    pool = await open_pool(database.service_dsn, 4, WORKING_SESSION)
    books = await Books.open(pool)
    payer = await books.payer(payer_id, 100 * USD)
    settlements = PostgresSettlementStore(pool)
    for _ in range(8):
        held = [await books.held(payer, USD) for _ in range(5)]
        await settlements.settle([observed(held[0], "0.20"), observed(held[1], usage=None)])
        await settlements.settle([observed(held[1], "0.20", source=Source.LOOKUP)])
        await settlements.end_by_policy(
            [PolicyDecision(held[2], PolicyVerdict.CHARGE, Rule.NO_RECORD, None)]
        )
        await settlements.end_by_policy(
            [PolicyDecision(held[3], PolicyVerdict.VOID, Rule.NO_RECORD, None)]
        )
        await books.holds.release([held[4]])
    await books.holds.close()
    await pool.close()


async def test_requests_and_settlements_read_nothing_of_the_past(
    books: Books, owner: "asyncpg.Connection[asyncpg.Record]", database: Database
) -> None:
    await _work(database, "before")
    before = await _reads(owner)
    assert len(before) == OLD_MONTHS * 6
    await _work(database, "after")
    assert await _reads(owner) == before


async def test_what_arrives_again_scans_nothing(
    books: Books, owner: "asyncpg.Connection[asyncpg.Record]", database: Database
) -> None:
    payer = await books.payer("ada", 100 * USD)
    hold_id = await books.held(payer, USD, placed_at=within(9))
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.20")])
    before = await _reads(owner)
    pool = await open_pool(database.service_dsn, 1, WORKING_SESSION)
    for cost, source in (("0.20", Source.FILE), ("0.30", Source.LOOKUP), ("0.30", Source.LOOKUP)):
        await PostgresSettlementStore(pool).settle([observed(hold_id, cost, source=source)])
    await pool.close()
    after = await _reads(owner)
    # By key in each month, and never the whole of one.
    assert {name: reads[0] for name, reads in after.items()} == {
        name: reads[0] for name, reads in before.items()
    }
    looked_into = {name for name in after if after[name] != before[name]}
    assert {name[:-8] for name in looked_into} == {
        "ended_hold_rows",
        "usage_rows",
        "settlements",
    }
