"""Settlements by the terms and the price of the provider that answered."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from meter.audit.events import SYSTEM
from meter.clock import SystemClock
from meter.ingest.metrics import IngestMetrics
from meter.lookups.queue import LookupQueue
from meter.lookups.worker import LookupMetrics, LookupWorker
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.price_lists import ListedPrice, PriceLists
from meter.process.crash_points import NoCrashPoints
from meter.providers.provider import DialectName
from meter.providers.provider_store import ProviderStore, ProviderTerms
from meter.providers.registry import ProviderRegistry
from meter.reconciliation.drift import ProviderTotal
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import ReportedUsage, TokenCounts
from tests.books import MODEL, USD, Books, Payer, observed

PROMPT, COMPLETION = 100_000, 500_000
DEARER = (400_000, 2_000_000)
USAGE = ReportedUsage(TokenCounts(prompt=1_000, completion=200), None)
COST = 1_000 * PROMPT + 200 * COMPLETION
DEARER_COST = 1_000 * DEARER[0] + 200 * DEARER[1]


class Setup:
    """Two further providers of the model of the books, the second one dearer."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.store = ProviderStore(books.pool)
        self.registry = ProviderRegistry(self.store, ())
        self.settlements = PostgresSettlementStore(
            books.pool, LookupTerms(), terms_of=self.registry.billing
        )
        self.price_ids: dict[str, int] = {}

    async def make(self) -> None:
        """Make the providers and import their prices."""
        for name, (prompt, completion) in {
            "first": (PROMPT, COMPLETION),
            "second": DEARER,
        }.items():
            terms = ProviderTerms(f"https://{name}.example.com/v1", "", False)
            await self.store.create(name, DialectName.OPENAI, terms, SYSTEM)
            await self.price(name, prompt, completion)
        await self.registry.refresh()

    async def price(self, provider: str, prompt: int, completion: int) -> None:
        """Import a price that takes effect now."""
        listed = ListedPrice(MODEL, None, prompt, completion)
        await PriceLists(self.books.pool).import_prices(provider, [listed], False, SYSTEM)
        prices = await PostgresCatalogue(self.books.pool).load_prices(provider)
        self.price_ids[provider] = prices[MODEL].price.id

    async def held(self, payer: Payer, provider: str, markup_bps: int = 0) -> UUID:
        """Place a hold with the price of a provider."""
        books = replace(self.books, price_id=self.price_ids[provider])
        return await books.held(payer, USD, markup_bps=markup_bps)

    async def price_of_record(self, hold_id: UUID) -> int:
        """Return the price that the usage record names."""
        found: int = await self.books.pool.fetchval(
            "SELECT price_id FROM usage_records WHERE hold_id = $1", hold_id
        )
        return found


@pytest.fixture
async def setup(books: Books) -> Setup:
    setup = Setup(books)
    await setup.make()
    return setup


@pytest.fixture
async def payer(books: Books) -> Payer:
    return await books.payer("alice", 10 * USD)


async def test_usage_without_a_cost_is_priced_by_the_price_of_the_hold(
    setup: Setup, payer: Payer
) -> None:
    hold_id = await setup.held(payer, "first", markup_bps=1_000)
    await setup.settlements.settle([observed(hold_id, usage=USAGE, provider="first")])
    charge = COST * 11 // 10
    assert await setup.books.funds("alice") == (10 * USD - charge, 0, 0)
    assert await setup.price_of_record(hold_id) == setup.price_ids["first"]
    assert (await setup.books.verified()).failures == ()


async def test_a_cost_that_such_a_provider_names_counts_for_nothing(
    setup: Setup, payer: Payer
) -> None:
    hold_id = await setup.held(payer, "first")
    named = replace(USAGE, cost_usd=Decimal("0.5"), is_byok=True)
    await setup.settlements.settle([observed(hold_id, usage=named, provider="first")])
    assert await setup.books.funds("alice") == (10 * USD - COST, 0, 0)


@pytest.mark.parametrize("answered", ["first", "second"])
async def test_the_price_of_the_provider_that_answered_counts(
    setup: Setup, payer: Payer, answered: str
) -> None:
    """The hold has the price of the dearest candidate, whoever answers."""
    hold_id = await setup.held(payer, "second")
    seen = observed(hold_id, usage=USAGE, provider=answered)
    await setup.settlements.settle([seen])
    cost = COST if answered == "first" else DEARER_COST
    assert await setup.books.funds("alice") == (10 * USD - cost, 0, 0)
    assert await setup.price_of_record(hold_id) == setup.price_ids[answered]
    # From the other log it changes nothing.
    await setup.settlements.settle([seen])
    assert await setup.books.funds("alice") == (10 * USD - cost, 0, 0)
    assert await setup.books.conflicts() == []


async def test_the_price_is_the_one_in_force_when_the_hold_was_placed(
    setup: Setup, payer: Payer
) -> None:
    hold_id = await setup.held(payer, "second")
    before = setup.price_ids["first"]
    await setup.price("first", 7 * PROMPT, 7 * COMPLETION)
    await setup.settlements.settle([observed(hold_id, usage=USAGE, provider="first")])
    assert await setup.price_of_record(hold_id) == before
    assert await setup.books.funds("alice") == (10 * USD - COST, 0, 0)


async def test_without_a_price_of_the_one_that_answered_the_hold_keeps_its_own(
    setup: Setup, payer: Payer
) -> None:
    hold_id = await setup.held(payer, "second")
    await setup.settlements.settle([observed(hold_id, usage=USAGE, provider="gone")])
    # Nothing is known of the provider that answered: the terms of the hold's provider hold.
    assert await setup.books.funds("alice") == (10 * USD - DEARER_COST, 0, 0)


@pytest.mark.parametrize("generation_id", ["chatcmpl-1", None])
async def test_where_nobody_has_records_the_policy_decides_at_once(
    setup: Setup, payer: Payer, generation_id: str | None
) -> None:
    asked: list[str] = []

    async def find_usage(provider: str, generation: str) -> ReportedUsage | None:
        asked.append(provider)
        return None

    worker = LookupWorker(
        LookupQueue(setup.books.pool, LookupTerms(), "openrouter"),
        setup.settlements,
        find_usage,
        SystemClock(),
        LookupMetrics(CollectorRegistry()),
        IngestMetrics(CollectorRegistry()).count,
        NoCrashPoints(),
        per_second=10,
        has_reports=True,
        terms_of=setup.registry.billing,
    )
    hold_id = await setup.held(payer, "first")
    seen = observed(hold_id, usage=None, provider="first", generation_id=generation_id)
    await setup.settlements.settle([seen])
    assert await setup.books.state(hold_id) == "unknown"
    assert await worker.look_up(10) == 1
    assert await setup.books.state(hold_id) == "settled"
    assert [record[1] for record in await setup.books.records(hold_id)] == ["provisional"]
    assert asked == []
    assert await setup.books.pool.fetchval("SELECT count(*) FROM lookups") == 0


async def test_a_refusal_of_a_documented_provider_ends_its_hold_at_once(
    setup: Setup, payer: Payer
) -> None:
    hold_id = await setup.held(payer, "first")
    refused = observed(
        hold_id,
        usage=None,
        provider="first",
        generation_id=None,
        provider_status=429,
        status_code=429,
    )
    await setup.settlements.settle([refused])
    assert await setup.books.state(hold_id) == "released"
    assert await setup.books.funds("alice") == (10 * USD, 0, 0)


async def test_what_other_providers_are_owed_is_on_no_bill_of_openrouter(
    setup: Setup, payer: Payer
) -> None:
    here = await setup.books.held(payer, USD)
    there = await setup.held(payer, "second")
    guessed = await setup.held(payer, "first")
    await setup.settlements.settle(
        [observed(here, "0.25"), observed(there, usage=USAGE, provider="first")]
    )
    decision = PolicyDecision(
        guessed, PolicyVerdict.CHARGE, Rule.NO_RECORD, observed(guessed, provider="first")
    )
    await setup.settlements.end_by_policy([decision])
    costs = await setup.books.pool.fetch(
        "SELECT provider, sum(cost_picos)::bigint AS cost FROM provider_costs GROUP BY provider"
    )
    (row,) = costs
    assert row["provider"] == "first"
    assert row["cost"] > COST
    total = ProviderTotal("openrouter", 1, USD // 4)

    class Totals:
        """OpenRouter's total of our key."""

        async def find_total(self) -> ProviderTotal:
            """Return the total."""
            return total

    reconciler = Reconciler(ReconciliationStore(setup.books.pool), Totals(), CollectorRegistry())
    await reconciler.reconcile()
    found = await setup.books.pool.fetchrow(
        "SELECT ledger_picos, provider_picos FROM provider_totals"
    )
    assert found is not None
    assert (found["ledger_picos"], found["provider_picos"]) == (USD // 4, USD // 4)
