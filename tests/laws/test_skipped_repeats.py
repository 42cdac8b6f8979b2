"""Passing over what is settled changes no book: the same entries, in any order, with and without.

Entries of a few holds arrive from both logs, twice or more, some of them contradicting others, in
batches, through outages and restarts of the meter. One meter remembers many endings, one hardly
any, and one none, so that it asks the books about everything.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from meter.errors import StoreUnavailable
from meter.holds.hold import HoldPlaced, HoldRequest
from meter.ingest.batcher import Batcher
from meter.ingest.ending import EntryFacts, NotedUsage
from meter.ingest.metrics import IngestMetrics
from meter.ingest.recent_endings import RecentEndings
from meter.pricing.prices import Estimate, Price
from meter.settlement.changes import SettlementChanges
from meter.usage.usage import Observation, Source
from tests.books import USD, observed
from tests.laws.state_machine.memory import MemoryBooks
from tests.laws.state_machine.tables import Account
from tests.log_entries import entry_of
from tests.settlements import FakeSettlementStore

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
PRICE: Final = Price(1, "m", NOW, 150_000, 600_000)
HOLDS: Final = tuple(UUID(int=number) for number in range(1, 5))


def entry(hold_id: UUID, **changes: object) -> EntryFacts:
    facts = entry_of(observed(hold_id))
    usage = NotedUsage(prompt_tokens=10.0, completion_tokens=20.0, cost=0.001)
    return facts._replace(**{"usage": usage, **changes})  # type: ignore[arg-type]


# What logs may say of one request: the same, less, more, nothing, an error, never sent.
SAYINGS: Final[tuple[dict[str, object], ...]] = (
    {},
    {"usage": NotedUsage(prompt_tokens=10.0, completion_tokens=20.0, cost=0.002)},
    {"usage": NotedUsage(prompt_tokens=0.0, completion_tokens=0.0, cost=0.0)},
    {"usage": NotedUsage(prompt_tokens=10.0, completion_tokens=20.0)},
    {"usage": NotedUsage(usage_json='{"prompt_tokens": 10, "cost": 0.001}')},
    {"usage": NotedUsage()},
    {"usage": NotedUsage(), "generation_id": None},
    {"status_code": 500},
    {"upstream_status": 429.0, "status_code": 503, "usage": NotedUsage(), "generation_id": None},
    {
        "upstream_sent_ms": None,
        "first_byte_ms": None,
        "status_code": 503,
        "is_upstreams": False,
        "usage": NotedUsage(),
        "generation_id": None,
    },
)


@dataclass(frozen=True)
class Arrival:
    """A batch of entries from one log; before it the meter may be started again."""

    entries: tuple[EntryFacts, ...]
    source: Source
    is_restarted: bool
    outages: int


entries = st.builds(
    lambda hold_id, told: entry(hold_id, **told), st.sampled_from(HOLDS), st.sampled_from(SAYINGS)
)
arrivals = st.builds(
    Arrival,
    st.lists(entries, min_size=1, max_size=5).map(tuple),
    st.sampled_from((Source.STREAM, Source.FILE)),
    st.booleans(),
    st.sampled_from((0, 0, 1)),
)


class Store(FakeSettlementStore):
    """Settles in the books in memory, which are written under the rules of the SQL."""

    def __init__(self) -> None:
        super().__init__()
        self.books = MemoryBooks(PRICE, NOW)
        self.books.accounts["ada"] = Account(balance_picos=USD)
        asked = Estimate(1, 500, USD // 100, 0, 100, 0, 0)
        for hold_id in HOLDS:
            (answer,) = self.books.place(
                [HoldRequest(hold_id, "ada", "c", "m", "chat_completions", asked)]
            )
            assert isinstance(answer, HoldPlaced)

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("away")
        self.asked += observations
        self.books.settle(observations)
        return []


async def books_after(told: Sequence[Arrival], remembered: int) -> Store:
    """The books after these arrivals, one after another."""
    store = Store()
    batcher = None
    for arrival in told:
        if batcher is None or arrival.is_restarted:
            if batcher is not None:
                await batcher.drain()
            batcher = Batcher(
                store, IngestMetrics(CollectorRegistry()), RecentEndings(most=remembered)
            )
            batcher.start()
        store.outages = arrival.outages
        # As the follower of the file does, before it leaves a line to the stream.
        left = [facts for facts in arrival.entries if not batcher.has_settled(facts)]
        await batcher.settle_all(left, arrival.source)
    if batcher is not None:
        await batcher.drain()
    return store


def asked_about(store: Store) -> dict[UUID, str | None]:
    """The holds that are looked up, with the generation to ask for.

    Which of several entries that contradict one another a look-up keeps depends on their order,
    and a repetition that is passed over counts as having come right after the first.
    """
    return {hold_id: one.generation_id for hold_id, one in store.books.lookups.items()}


@pytest.fixture(scope="module", autouse=True)
def _quick_retries() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meter.ingest.batcher.RETRY_FIRST_S", 0.001)
        yield


@settings(deadline=None)
@given(st.lists(arrivals, min_size=1, max_size=12))
def test_the_books_are_the_same_with_and_without_a_memory(told: list[Arrival]) -> None:
    without, hardly, much = (
        asyncio.run(books_after(told, remembered)) for remembered in (0, 2, 1_000)
    )
    for store in (hardly, much):
        mine, its = store.books, without.books
        assert mine.accounts == its.accounts
        assert mine.records == its.records
        assert mine.posted == its.posted
        assert mine.ended == its.ended
        assert mine.holds == its.holds
        assert asked_about(store) == asked_about(without)
        # A contradiction that is told twice is kept once or twice; that there is one is the same.
        assert set(mine.conflicts.values()) == set(its.conflicts.values())
        assert len(store.asked) <= len(without.asked)


def test_a_repetition_is_passed_over_and_a_contradiction_is_not() -> None:
    """Without this the law above would hold for a memory that never knows anything."""
    same, other = entry(HOLDS[0]), entry(HOLDS[0], **SAYINGS[1])
    told = [
        Arrival((same,), Source.STREAM, False, 0),
        Arrival((same,), Source.FILE, False, 0),
        Arrival((other,), Source.FILE, False, 0),
    ]
    store = asyncio.run(books_after(told, 1_000))
    assert [seen.source for seen in store.asked] == [Source.STREAM, Source.FILE]
    assert list(store.books.conflicts.values()) == [(HOLDS[0], "other_amount")]
    forgetful = asyncio.run(books_after([replace(one, is_restarted=True) for one in told], 1_000))
    assert len(forgetful.asked) == 3
