"""The usual cost of models in Postgres: policy guesses from it, and never waits for it."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from meter.errors import StoreUnavailable
from meter.holds.hold import HoldPlaced
from meter.settlement.billing_terms import BillingTerms
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import FEWEST_REQUESTS, PostgresSettlementStore
from meter.settlement.usual_use_store import REQUESTS_REMEMBERED, UsualUses
from meter.usage.usage import ReportedUsage, TokenCounts
from tests.books import MODEL, USD, Books, Payer, assumed_charge, observed, offered

PROMPT, COMPLETION = offered().prompt_picos, offered().completion_picos
PROMPT_TOKENS, COMPLETION_TOKENS = 50, 24
COST = PROMPT_TOKENS * PROMPT + COMPLETION_TOKENS * COMPLETION


class LearningSetup:
    """Settlements that learn what requests use."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.uses = UsualUses(books.pool, CollectorRegistry())
        self.settlements = PostgresSettlementStore(
            books.pool, uses=self.uses, terms_of=lambda _: BillingTerms(names_costs=False)
        )

    async def hold(self, payer: Payer, prompt_bytes: int = 200) -> HoldPlaced:
        """A hold of a request that may answer with thousands of tokens."""
        fixed = (1_024 + prompt_bytes) * PROMPT
        answer = await self.books.holds.place(
            self.books.request(payer, fixed, COMPLETION, 16, 16_384)
        )
        assert isinstance(answer, HoldPlaced)
        return answer

    async def serve(self, payer: Payer, times: int) -> None:
        """Settle requests of the usual size, and write what was learnt."""
        usage = ReportedUsage(TokenCounts(PROMPT_TOKENS, COMPLETION_TOKENS), None)
        held = [(await self.hold(payer)).hold_id for _ in range(times)]
        await self.settlements.settle([observed(hold_id, usage=usage) for hold_id in held])
        await self.uses.write()

    async def charge_by_policy(self, payer: Payer, prompt_bytes: int = 200) -> int:
        """Return the charge by policy for one more request."""
        placed = await self.hold(payer, prompt_bytes)
        decision = PolicyDecision(placed.hold_id, PolicyVerdict.CHARGE, Rule.NO_GENERATION_ID, None)
        changes = await self.settlements.end_by_policy([decision])
        (booking,) = changes.bookings
        assert booking.charge_picos <= placed.amount_picos // 3, "never the whole hold"
        return booking.charge_picos

    async def requests(self) -> dict[str, int]:
        """Return the number of requests in the sums of each account."""
        rows = await self.books.pool.fetch("SELECT account_id, requests FROM usual_uses")
        return {row["account_id"]: row["requests"] for row in rows}


@pytest.fixture
async def setup(books: Books) -> LearningSetup:
    return LearningSetup(books)


async def test_policy_charges_what_such_requests_usually_cost(
    setup: LearningSetup, books: Books
) -> None:
    ada, bob = await books.payer("ada", 10 * USD), await books.payer("bob", 10 * USD)
    await setup.serve(ada, FEWEST_REQUESTS - 1)
    assumed = await setup.charge_by_policy(ada)
    assert assumed == 200 * PROMPT // 4 + 256 * COMPLETION, "too few requests are known"
    await setup.serve(ada, 1)
    assert await setup.charge_by_policy(ada) == COST
    assert await setup.charge_by_policy(bob) == COST, "of all accounts"
    longer = await setup.charge_by_policy(ada, prompt_bytes=20_000)
    assert longer == COST + 99 * PROMPT_TOKENS * PROMPT
    assert (await books.verified()).is_ok


async def test_sums_are_of_the_latest_requests(setup: LearningSetup, books: Books) -> None:
    ada = await books.payer("ada", 10 * USD)
    await setup.serve(ada, 12)
    assert await setup.requests() == {"ada": 12, "": 12}
    await books.pool.execute(
        "UPDATE usual_uses SET requests = $1::bigint, completion_tokens = $1::bigint * 1000",
        REQUESTS_REMEMBERED,
    )
    await setup.serve(ada, 2)
    assert await setup.requests() == {"ada": 501, "": 501}
    tokens = await books.pool.fetchval(
        "SELECT completion_tokens FROM usual_uses WHERE account_id = 'ada'"
    )
    assert tokens == (REQUESTS_REMEMBERED * 1_000 + 2 * COMPLETION_TOKENS) // 2


async def test_policy_and_corrections_teach_nothing(setup: LearningSetup, books: Books) -> None:
    ada = await books.payer("ada", 10 * USD)
    charge = await setup.charge_by_policy(ada)
    assert charge > 0
    await setup.uses.write()
    assert await setup.requests() == {}


async def test_what_an_outage_kept_from_being_written_is_written_later(
    setup: LearningSetup, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await books.payer("ada", 10 * USD)

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr("meter.settlement.usual_use_store.acquire", away)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await setup.serve(ada, 3)
    await setup.serve(ada, 1)
    assert await setup.requests() == {"ada": 7, "": 7}


async def test_a_locked_statistic_delays_no_settlement_and_no_policy(
    setup: LearningSetup, books: Books
) -> None:
    ada = await books.payer("ada", 10 * USD)
    await setup.serve(ada, FEWEST_REQUESTS)
    async with books.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM usual_uses FOR UPDATE")
        usage = ReportedUsage(TokenCounts(PROMPT_TOKENS, COMPLETION_TOKENS), None)
        placed = await setup.hold(ada)
        await setup.settlements.settle([observed(placed.hold_id, usage=usage)])
        assert await setup.charge_by_policy(ada) == COST


async def test_meters_that_write_together_lose_nothing(books: Books) -> None:
    ada = await books.payer("ada", 10 * USD)
    setups = [LearningSetup(books) for _ in range(4)]
    await asyncio.gather(*(setup.serve(ada, 5) for setup in setups))
    await books.settle_parked()
    assert await setups[0].requests() == {"ada": 20, "": 20}


async def test_what_nobody_uses_is_forgotten(setup: LearningSetup, books: Books) -> None:
    await setup.serve(await books.payer("ada", 10 * USD), 1)
    await books.pool.execute("UPDATE usual_uses SET updated_at = now() - interval '61 days'")
    await UsualUses(books.pool, CollectorRegistry()).write()
    assert await setup.requests() == {}


async def test_a_hold_of_an_unknown_model_is_charged_by_assumption(books: Books) -> None:
    payer = await books.payer("ada", 10 * USD)
    hold_id = await books.held(payer, USD)
    decision = PolicyDecision(hold_id, PolicyVerdict.CHARGE, Rule.NO_ENTRY, None)
    await PostgresSettlementStore(books.pool).end_by_policy([decision])
    assert await books.funds("ada") == (10 * USD - assumed_charge(USD), 0, 0)
    assert MODEL not in {row[0] for row in await books.pool.fetch("SELECT * FROM usual_uses")}
