"""A stream that names wrong costs is found by samples of the provider's records."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter.clock import ManualClock
from meter.errors import ProviderUnavailable
from meter.lookups.samples import (
    MOST_WAITING,
    RECORD_AFTER_S,
    RecordSamples,
    SampledSettlementStore,
)
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import ReportedUsage, TokenCounts
from tests.books import USD, Books, observed


class Sampling:
    """Samples of everything, once a second, of records that name one cost."""

    def __init__(self, books: Books, recorded_usd: str | None) -> None:
        self.clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
        self.registry = CollectorRegistry()
        self.asked: list[str] = []
        self.recorded_usd = recorded_usd
        self.is_away = False
        store = PostgresSettlementStore(books.pool)
        self.samples = RecordSamples(
            store, self.find, self.clock, self.registry, lambda _: None, 1.0, 1.0
        )
        self.logged = SampledSettlementStore(store, self.samples)

    async def find(self, provider: str, generation_id: str) -> ReportedUsage | None:
        """Return the record of a generation."""
        self.asked.append(generation_id)
        if self.is_away:
            raise ProviderUnavailable("away")
        if self.recorded_usd is None:
            return None
        return ReportedUsage(TokenCounts(10, 10), Decimal(self.recorded_usd))

    async def later(self) -> None:
        """Let the time pass after which a record is complete."""
        self.clock.advance(RECORD_AFTER_S + 1)
        await self.samples.step()

    def outcomes(self) -> dict[str, float]:
        """Return how often each outcome was counted."""
        (family,) = self.registry.collect()
        return {
            one.labels["outcome"]: one.value
            for one in family.samples
            if one.name.endswith("_total")
        }


@pytest.mark.parametrize(
    ("recorded_usd", "outcome", "charged_usd"),
    [
        ("0.001", "agrees", "0.001"),
        ("0.25", "corrected", "0.25"),
        ("0", "unpriced", "0.001"),
        (None, "no_record", "0.001"),
    ],
)
async def test_a_record_with_another_cost_corrects_the_charge(
    books: Books, recorded_usd: str | None, outcome: str, charged_usd: str
) -> None:
    payer = await books.payer("ada", USD)
    hold_id = await books.held(payer, USD // 2)
    sampling = Sampling(books, recorded_usd)
    await sampling.logged.settle([observed(hold_id, "0.001")])
    await sampling.samples.step()
    assert sampling.asked == []
    with capture_logs() as logs:
        await sampling.later()
    assert sampling.outcomes() == {outcome: 1}
    assert await books.funds("ada") == (USD - int(Decimal(charged_usd) * USD), 0, 0)
    assert [one["event"] for one in logs] == ["sample_corrected"] * (outcome == "corrected")
    assert (await books.verified()).is_ok


async def test_the_provider_is_asked_at_a_bounded_rate(books: Books) -> None:
    payer = await books.payer("ada", USD)
    sampling = Sampling(books, "0.001")
    for _ in range(3):
        await sampling.logged.settle([observed(await books.held(payer, USD // 10), "0.001")])
    await sampling.later()
    assert len(sampling.asked) == 1
    sampling.is_away = True
    await sampling.samples.step()
    await sampling.samples.step()
    await sampling.samples.step()
    assert sampling.outcomes() == {"agrees": 1, "unavailable": 2}


async def test_what_waits_is_bounded_and_needs_a_cost_and_an_id(books: Books) -> None:
    sampling = Sampling(books, "0.001")
    hold_id = await books.held(await books.payer("ada", USD), USD // 10)
    sampling.samples.note([observed(hold_id, None), observed(hold_id, "1", generation_id=None)])
    await sampling.later()
    assert sampling.asked == []
    sampling.samples.note([observed(hold_id, "1")] * (MOST_WAITING + 5))
    assert len(sampling.samples._waiting) == MOST_WAITING
