"""Nearly every ending arrives twice: the second time costs nothing, unless it differs."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from meter.ingest.batcher import Batcher
from meter.ingest.metrics import IngestMetrics
from meter.ingest.recent_endings import RecentEndings
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts
from tests.books import observed
from tests.patience import WAIT_S
from tests.settlements import FakeSettlementStore


@pytest.fixture
def books() -> FakeSettlementStore:
    return FakeSettlementStore()


@pytest.fixture
async def batcher(books: FakeSettlementStore, monkeypatch: pytest.MonkeyPatch) -> Batcher:
    monkeypatch.setattr("meter.ingest.batcher.RETRY_FIRST_S", 0.001)
    made = Batcher(books, IngestMetrics(CollectorRegistry()))
    made.start()
    return made


def in_file(observation: Observation) -> Observation:
    return replace(observation, source=Source.FILE)


async def test_the_files_line_of_a_settled_ending_asks_nothing(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    endings = [observed(uuid4()) for _ in range(5)]
    for ending in endings:
        await batcher.put(ending)
    await batcher.settle_all([in_file(ending) for ending in endings])
    assert books.asked == endings
    await batcher.drain()


async def test_both_may_wait_in_one_batch(books: FakeSettlementStore, batcher: Batcher) -> None:
    ending = observed(uuid4())
    books.outages = 2
    await batcher.put(observed(uuid4()))
    await asyncio.sleep(0)
    await batcher.put(ending)
    await batcher.settle_all([in_file(ending)])
    assert [each.source for each in books.asked].count(Source.FILE) == 0
    assert len(books.asked) == 2
    await batcher.drain()


async def test_the_stream_may_come_second(books: FakeSettlementStore, batcher: Batcher) -> None:
    ending = observed(uuid4())
    await batcher.settle_all([in_file(ending)])
    await batcher.put(ending)
    await batcher.drain()
    assert books.asked == [in_file(ending)]


@pytest.mark.parametrize(
    "change",
    [
        {"usage": None},
        {"usage": ReportedUsage(TokenCounts(10, 20), Decimal("0.002"))},
        {"generation_id": "gen-2"},
        {"response_flags": "DC"},
        {"source": Source.LOOKUP},
    ],
)
async def test_what_differs_goes_on_to_the_books(
    books: FakeSettlementStore, batcher: Batcher, change: dict[str, object]
) -> None:
    ending = observed(uuid4())
    other = replace(ending, **change)  # type: ignore[arg-type]
    await batcher.settle_all([ending])
    await batcher.settle_all([other])
    assert books.asked == [ending, other]
    await batcher.drain()


async def test_equal_costs_written_otherwise_are_the_same(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    ending = observed(uuid4(), cost_usd="3")
    same = observed(ending.hold_id, cost_usd="3.0", source=Source.FILE)
    await batcher.settle_all([ending])
    await batcher.settle_all([same])
    assert books.asked == [ending]
    await batcher.drain()


async def test_what_could_not_be_settled_is_not_remembered(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    ending = observed(uuid4())
    books.poison = {ending.hold_id}
    await batcher.settle_all([ending])
    books.poison = set()
    await batcher.settle_all([in_file(ending)])
    assert books.asked == [in_file(ending)]
    await batcher.drain()


async def test_settled_means_through_the_outage(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    books.outages = 3
    endings = [observed(uuid4()) for _ in range(3)]
    await asyncio.wait_for(batcher.settle_all(endings), WAIT_S)
    assert books.asked == endings
    await batcher.drain()


async def test_a_refusal_of_us_is_alarmed_once_whichever_log_tells(
    batcher: Batcher, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = observed(uuid4(), status_code=503, provider_status=402, usage=None)
    await batcher.settle_all([in_file(refused)])
    await batcher.settle_all([refused])
    assert capsys.readouterr().out.count("provider_refused_us") == 1
    await batcher.drain()


async def test_nothing_to_settle_is_settled_at_once(batcher: Batcher) -> None:
    await asyncio.wait_for(batcher.settle_all([]), WAIT_S)
    await batcher.drain()


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    recent = RecentEndings(most=3)
    endings = [observed(uuid4()) for _ in range(5)]
    recent.remember(endings)
    assert recent.fresh(endings) == endings[:2]
