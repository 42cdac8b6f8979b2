"""Measured excess raises the estimate of its class, until an administrator clears it."""

from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter.money import BPS_PER_WHOLE
from meter.postgres.pool import PostgresConnection
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import MAX_FACTOR_BPS
from meter.settlement.measured_excess import MeasuredExcesses
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import MODEL, USD, Books, observed
from tests.meter_api import MeterApi

PATH = "/api/v1/admin/catalogue/raised-estimates"


class Settling:
    """Settlements of one account, with what they teach of estimates."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.excesses = MeasuredExcesses(books.pool, CollectorRegistry())
        self.settlements = PostgresSettlementStore(books.pool, excesses=self.excesses)

    async def settle(
        self, *costs: str, held: int = USD, age: timedelta | None = None
    ) -> int | None:
        """Settle holds of one dollar at these costs; return the factor in force then."""
        payer = await self.books.payer(f"payer-{datetime.now(UTC).timestamp():.6f}", 900 * USD)
        placed_at = None if age is None else datetime.now(UTC) - age
        holds = [await self.books.held(payer, held, placed_at=placed_at) for _ in costs]
        await self.settlements.settle(
            [observed(hold_id, cost) for hold_id, cost in zip(holds, costs, strict=True)]
        )
        await self.excesses.write()
        models = await PostgresCatalogue(self.books.pool).load_models()
        return models[MODEL].raised_bps.get("chat_completions")


async def test_the_dearest_of_parallel_excesses_raises_the_estimate_once(books: Books) -> None:
    settling = Settling(books)
    assert await settling.settle("0.5", "1") is None
    with capture_logs() as logs:
        # All of these were estimated before the first raise was in force.
        assert await settling.settle("1.5", "3", "2") == 3 * BPS_PER_WHOLE
        assert await settling.settle("2.5") == 3 * BPS_PER_WHOLE
        assert await settling.settle("4", "4") == 4 * BPS_PER_WHOLE
    assert [one["factor"] for one in logs if one["event"] == "estimate_raised"] == [3, 4]


async def test_an_excess_under_a_raised_estimate_raises_it_further(
    books: Books, owner: PostgresConnection
) -> None:
    settling = Settling(books)
    await settling.settle("2")
    await owner.execute("UPDATE raised_estimates SET raised_at = now() - interval '1 hour'")
    assert await settling.settle("1.5") == 3 * BPS_PER_WHOLE
    # This hold was placed before the first raise, when the factor was one.
    assert await settling.settle("2", age=timedelta(hours=2)) == 4 * BPS_PER_WHOLE


async def test_a_factor_has_a_limit(books: Books) -> None:
    settling = Settling(books)
    assert await settling.settle("500") == MAX_FACTOR_BPS
    assert await settling.settle("0.1", held=0) == MAX_FACTOR_BPS


async def test_an_administrator_sees_and_clears_it(books: Books, api: MeterApi) -> None:
    settling = Settling(books)
    await settling.settle("1.7", "2")
    (raised,) = (await api.operator.get(PATH)).json()["data"]
    assert (raised["model"], raised["endpoint"]) == (MODEL, "chat_completions")
    assert (raised["factor"], raised["is_refused"], raised["excesses"]) == (2.0, False, 2)
    assert (await api.anybody.get(PATH)).status_code == 401
    named = {"model": MODEL, "endpoint": "chat_completions"}
    assert (await api.operator.delete(PATH, params=named)).status_code == 204
    assert (await api.operator.delete(PATH, params=named)).status_code == 404
    assert not (await api.operator.get(PATH)).json()["data"]
    assert await settling.settle("1") is None
    lines = (await api.operator.get("/api/v1/admin/audit-log")).json()["data"]
    (line,) = [one for one in lines if one["action"] == "raised_estimate.cleared"]
    assert line["detail"]["factor_bps"] == 2 * BPS_PER_WHOLE
