"""With both logs every ending arrives twice: the second time costs nothing, unless it differs."""

import asyncio
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from meter.ingest.batcher import Batcher
from meter.ingest.ending import EntryFacts, NotedUsage
from meter.ingest.metrics import IngestMetrics
from meter.ingest.recent_endings import RecentEndings
from meter.usage.usage import Source
from tests.books import observed
from tests.log_entries import entry_of
from tests.patience import WAIT_S
from tests.settlements import FakeSettlementStore

STREAM, FILE = Source.STREAM, Source.FILE


@pytest.fixture
def books() -> FakeSettlementStore:
    return FakeSettlementStore()


@pytest.fixture
async def batcher(books: FakeSettlementStore, monkeypatch: pytest.MonkeyPatch) -> Batcher:
    monkeypatch.setattr("meter.ingest.batcher.RETRY_FIRST_S", 0.001)
    made = Batcher(books, IngestMetrics(CollectorRegistry()))
    made.start()
    return made


def entry(**changes: object) -> EntryFacts:
    """A finished request as both logs tell it."""
    facts = entry_of(observed(uuid4()))
    return facts._replace(
        **{"usage": NotedUsage(prompt_tokens=10.0, cost=0.001), **changes}  # type: ignore[arg-type]
    )


async def test_the_files_line_of_a_settled_ending_asks_nothing(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    entries = [entry() for _ in range(5)]
    await batcher.put(entries, STREAM)
    await batcher.settle_all(entries, FILE)
    assert [each.source for each in books.asked] == [STREAM] * 5
    assert all(map(batcher.has_settled, entries))
    await batcher.drain()


async def test_both_may_wait_in_one_batch(books: FakeSettlementStore, batcher: Batcher) -> None:
    ending = entry()
    books.outages = 2
    await batcher.put([entry()], STREAM)
    await asyncio.sleep(0)
    await batcher.put([ending], STREAM)
    assert not batcher.has_settled(ending)
    await batcher.settle_all([ending], FILE)
    assert [each.source for each in books.asked] == [STREAM, STREAM]
    await batcher.drain()


async def test_the_stream_may_come_second(books: FakeSettlementStore, batcher: Batcher) -> None:
    ending = entry()
    await batcher.settle_all([ending], FILE)
    await batcher.put([ending], STREAM)
    await batcher.drain()
    assert [each.source for each in books.asked] == [FILE]


@pytest.mark.parametrize(
    "change",
    [
        {"usage": NotedUsage()},
        {"usage": NotedUsage(prompt_tokens=10.0, cost=0.002)},
        {"usage": NotedUsage(prompt_tokens=11.0, cost=0.001)},
        {"usage": NotedUsage(prompt_tokens=10.0, cost=0.001, has_error=True)},
        {"usage": NotedUsage(prompt_tokens=10.0, cost=0.001, is_byok=True)},
        {"generation_id": "gen-2"},
        {"flags": "DC"},
        {"status_code": 500},
        {"upstream_status": 402.0},
        {"is_upstreams": False},
        {"upstream_sent_ms": None},
        {"response_bytes": 0},
    ],
)
async def test_what_differs_goes_on_to_the_books(
    books: FakeSettlementStore, batcher: Batcher, change: dict[str, object]
) -> None:
    ending = entry()
    other = ending._replace(**change)  # type: ignore[arg-type]
    await batcher.settle_all([ending], STREAM)
    assert not batcher.has_settled(other)
    await batcher.settle_all([other], FILE)
    assert [each.source for each in books.asked] == [STREAM, FILE]
    await batcher.drain()


def test_whole_numbers_are_the_same_as_doubles_or_not() -> None:
    """The stream has doubles only; the file writes a whole one without a fraction."""
    recent, ending = RecentEndings(), entry(usage=NotedUsage(prompt_tokens=10.0, cost=3.0))
    recent.remember(ending)
    assert recent.knows(ending._replace(usage=NotedUsage(prompt_tokens=10, cost=3)))


async def test_what_could_not_be_settled_is_not_remembered(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    observation = observed(uuid4())
    ending = entry_of(observation)
    books.poison = {observation.hold_id}
    await batcher.settle_all([ending], STREAM)
    assert not batcher.has_settled(ending)
    books.poison = set()
    await batcher.settle_all([ending], FILE)
    assert [each.source for each in books.asked] == [FILE]
    await batcher.drain()


async def test_settled_means_through_the_outage(
    books: FakeSettlementStore, batcher: Batcher
) -> None:
    books.outages = 3
    observations = [observed(uuid4()) for _ in range(3)]
    await asyncio.wait_for(batcher.settle_all(list(map(entry_of, observations)), STREAM), WAIT_S)
    assert books.asked == observations
    await batcher.drain()


async def test_a_refusal_of_us_is_alarmed_once_whichever_log_tells(
    batcher: Batcher, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = entry_of(observed(uuid4(), status_code=503, provider_status=402, usage=None))
    await batcher.settle_all([refused], FILE)
    await batcher.settle_all([refused], STREAM)
    assert capsys.readouterr().out.count("provider_refused_us") == 1
    await batcher.drain()


async def test_nothing_to_settle_is_settled_at_once(batcher: Batcher) -> None:
    await asyncio.wait_for(batcher.settle_all([], FILE), WAIT_S)
    await batcher.drain()


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    recent = RecentEndings(most=3)
    endings = [entry() for _ in range(5)]
    for ending in endings:
        recent.remember(ending)
    assert [recent.knows(ending) for ending in endings] == [False, False, True, True, True]
