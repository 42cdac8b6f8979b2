"""Guesses: their common cost is spread over them, exactly and once."""

from datetime import timedelta
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from meter.reconciliation.drift import CorrectedGuesses, ProviderTotal, ReconciliationReport
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.spreading import Share
from meter.usage.usage import Source
from tests.books import USD, Books, Payer, assumed_charge, observed

CENT = USD // 100


class Totals:
    """The provider's total of the key."""

    def __init__(self) -> None:
        self.total_picos = 0

    async def find_total(self) -> ProviderTotal | None:
        return ProviderTotal("openrouter", 1, self.total_picos)


class Setup:
    """Books whose baseline is known exactly, and a provider that bills."""

    def __init__(self, books: Books, corrects: bool = True) -> None:
        self.books = books
        self.totals = Totals()
        self.settlements = PostgresSettlementStore(books.pool)
        self.reconciler = Reconciler(
            ReconciliationStore(books.pool),
            self.totals,
            CollectorRegistry(),
            self.settlements if corrects else None,
            # What was booked is in the provider's total at once.
            provider_lag=timedelta(0),
        )

    async def report(self) -> ReconciliationReport:
        """Reconcile; the books agree before and after."""
        report = (await self.reconciler.reconcile()).report
        assert (await self.books.verified()).is_ok
        return report

    async def guess(self, payer: Payer, held: int, markup_bps: int = 0) -> UUID:
        """A request that a policy charged."""
        hold_id = await self.books.held(payer, held, markup_bps=markup_bps)
        decision = PolicyDecision(hold_id, PolicyVerdict.CHARGE, Rule.NO_GENERATION_ID, None)
        await self.settlements.end_by_policy([decision])
        return hold_id

    async def costs(self, *hold_ids: UUID) -> list[int]:
        """Return the present cost of each request in the books."""
        return [
            int(
                await self.books.pool.fetchval(
                    "SELECT sum(provider_cost_picos) FROM usage_records WHERE hold_id = $1", one
                )
            )
            for one in hold_ids
        ]


@pytest.fixture
async def setup(books: Books) -> Setup:
    setup = Setup(books)
    baseline = (await setup.report()).provider
    assert baseline is not None and baseline.outside.least_picos == baseline.outside.most_picos
    return setup


@pytest.mark.parametrize("bill", [9 * CENT + 1, 2 * USD - 7, 0])
async def test_the_total_is_spread_exactly(setup: Setup, books: Books, bill: int) -> None:
    ada, bob = await books.payer("ada", 20 * USD), await books.payer("bob", 20 * USD)
    guesses = [
        await setup.guess(ada, 2 * USD),
        await setup.guess(ada, USD, markup_bps=2_000),
        await setup.guess(bob, USD // 2),
    ]
    settled = await books.held(ada, USD)
    await setup.settlements.settle([observed(settled, "0.25")])
    before = await setup.costs(*guesses)
    setup.totals.total_picos = bill + USD // 4
    report = await setup.report()
    assert report.is_ok
    assert report.guesses == CorrectedGuesses(3, bill - sum(before))
    after = await setup.costs(*guesses)
    assert sum(after) == bill
    for cost, guess in zip(after, before, strict=True):
        assert abs(cost * sum(before) - guess * bill) < sum(before), "in proportion"
    # Once is enough, and the next run finds nothing that contradicts.
    again = await setup.report()
    assert (again.guesses, again.is_ok) == (None, True)
    assert await setup.costs(*guesses) == after
    charged = 20 * USD - (await books.funds("bob"))[0]
    assert charged == after[2]


async def test_the_truth_takes_precedence_and_the_rest_is_spread_again(
    setup: Setup, books: Books
) -> None:
    payer = await books.payer("ada", 20 * USD)
    first, second = await setup.guess(payer, USD), await setup.guess(payer, USD)
    setup.totals.total_picos = 30 * CENT
    await setup.report()
    assert await setup.costs(first, second) == [15 * CENT, 15 * CENT]
    await setup.settlements.settle([observed(first, "0.10", source=Source.LOOKUP)])
    report = await setup.report()
    assert report.guesses == CorrectedGuesses(1, 5 * CENT)
    assert await setup.costs(first, second) == [10 * CENT, 20 * CENT]
    templates = [name for name, _ in await books.postings(second)]
    assert templates == ["settlement"] + 2 * ["reversal", "correction"]


async def test_what_the_holds_do_not_cover_is_drift_and_moves_nothing(
    setup: Setup, books: Books
) -> None:
    payer = await books.payer("ada", 20 * USD)
    guess = await setup.guess(payer, USD)
    setup.totals.total_picos = USD + CENT
    report = await setup.report()
    assert report.drifts()["provider"] == CENT
    assert report.guesses is None
    assert await setup.costs(guess) == [assumed_charge(USD)]
    setup.totals.total_picos = USD
    assert (await setup.report()).is_ok
    assert await setup.costs(guess) == [USD], "all that the hold covers"


async def test_requests_in_flight_leave_a_range_in_which_guesses_stay(
    setup: Setup, books: Books
) -> None:
    payer = await books.payer("ada", 20 * USD)
    guess = await setup.guess(payer, USD)
    in_flight = await books.held(payer, 10 * CENT)
    setup.totals.total_picos = assumed_charge(USD) + 10 * CENT
    assert (await setup.report()).guesses is None, "the one in flight may explain it"
    setup.totals.total_picos += CENT
    report = await setup.report()
    assert report.guesses == CorrectedGuesses(1, CENT), "but no more than its hold"
    await books.holds.release([in_flight])
    report = await setup.report()
    assert report.guesses == CorrectedGuesses(1, 10 * CENT)
    assert await setup.costs(guess) == [setup.totals.total_picos]


async def test_it_can_be_switched_off(books: Books, setup: Setup) -> None:
    payer = await books.payer("ada", 20 * USD)
    guess = await setup.guess(payer, USD)
    off = Setup(books, corrects=False)
    assert (await off.report()).guesses is None
    assert await setup.costs(guess) == [assumed_charge(USD)]


async def test_a_share_of_what_changed_meanwhile_is_void(setup: Setup, books: Books) -> None:
    payer = await books.payer("ada", 20 * USD)
    first, second = await setup.guess(payer, USD), await setup.guess(payer, USD)
    await setup.settlements.settle([observed(first, "0.10", source=Source.LOOKUP)])
    shares = [Share(first, 0, 7), Share(second, 0, 8)]
    for _ in range(2):
        await setup.settlements.correct_guesses(shares)
    assert await setup.costs(first, second) == [10 * CENT, 8]
    assert (await books.verified()).is_ok
