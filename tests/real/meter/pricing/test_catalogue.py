"""The catalogue in Postgres: every price comes back, and withheld models are listed."""

from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import WithheldModel
from meter.providers.catalogue_sync import CatalogueSync
from meter.providers.openrouter.provider import OPENROUTER
from meter.providers.provider import OfferedCatalogue
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import ReportedUsage, TokenCounts
from tests.books import MODEL, USD, Books, observed, offered
from tests.fakes import FakeProviderKeys
from tests.meter_api import MeterApi

TIERS = ({"min_prompt_tokens": 1_000, "prompt_picos": 10**6, "completion_picos": 10**7},)


async def test_every_price_and_tier_comes_back(books: Books) -> None:
    catalogue = PostgresCatalogue(books.pool)
    names = [
        *("cache_write_1h_picos", "image_token_picos", "image_output_picos"),
        *("audio_picos", "audio_output_picos", "audio_cache_picos"),
    ]
    prices: dict[str, Any] = {name: place for place, name in enumerate(names)}
    listed = replace(offered(), **prices, tiers=TIERS, unasked_searches=10)
    assert await catalogue.save("openrouter", [listed]) == 1
    assert await catalogue.save("openrouter", [listed]) == 0
    model = (await catalogue.load_models())[MODEL]
    assert model.unasked_searches == 10
    assert [getattr(model.price, name) for name in names] == list(range(len(names)))
    base, tier = model.price.reachable(1_000)
    assert base is model.price
    assert (tier.prompt_picos, tier.completion_picos) == (10**6, 10**7)
    assert tier.audio_cache_picos == 5
    assert model.price.reachable(999) == (base,)
    changed = replace(listed, tiers=({**TIERS[0], "prompt_picos": 2},))
    assert await catalogue.save("openrouter", [changed]) == 1


async def test_usage_without_a_cost_is_charged_by_the_tier_that_applies(books: Books) -> None:
    await PostgresCatalogue(books.pool).save("openrouter", [offered(tiers=TIERS)])
    payer = await books.payer("ada", 5 * USD)
    charges = []
    for prompt in (999, 1_000):
        hold_id = await books.held(payer, USD)
        await books.pool.execute(
            "UPDATE holds SET price_id = (SELECT max(id) FROM prices) WHERE id = $1", hold_id
        )
        usage = ReportedUsage(TokenCounts(prompt, 10), cost_usd=None)
        settled = await PostgresSettlementStore(books.pool).settle([observed(hold_id, usage=usage)])
        charges.append(settled[0].bookings[0].charge_picos)
    assert charges == [999 * 150_000 + 10 * 600_000, 1_000 * 10**6 + 10 * 10**7]


async def test_withheld_models_are_those_of_the_last_listing(books: Books, api: MeterApi) -> None:
    catalogue = PostgresCatalogue(books.pool)
    both = [WithheldModel("a/a", "It has one fault."), WithheldModel("b/b", "Another.")]
    await catalogue.save("openrouter", [offered()], both)
    first = await catalogue.list_withheld()
    assert [(one.model_id, one.reason) for one in first] == [
        ("a/a", "It has one fault."),
        ("b/b", "Another."),
    ]
    await catalogue.save("openrouter", [offered()], both[:1])
    assert await catalogue.list_withheld() == first[:1]
    reply = (await api.operator.get("/api/v1/admin/catalogue/withheld")).json()["data"]
    assert [(one["model"], one["reason"]) for one in reply] == [("a/a", "It has one fault.")]
    await catalogue.save("openrouter", [offered()], [WithheldModel("a/a", "New.")])
    (changed,) = await catalogue.list_withheld()
    assert changed.first_seen_at > first[0].first_seen_at


async def test_a_withheld_model_is_warned_of_once_a_change(books: Books) -> None:
    listing = OfferedCatalogue((offered(),), (WithheldModel("a/a", "It has one fault."),))

    async def fetch(*_: object) -> OfferedCatalogue:
        return listing

    registry = CollectorRegistry()
    sync = CatalogueSync(
        PostgresCatalogue(books.pool),
        FakeProviderKeys(),
        replace(OPENROUTER, fetch_catalogue=fetch),
        60.0,
        registry,
    )
    with capture_logs() as logs:
        for _ in range(3):
            await sync.sync(None)  # type: ignore[arg-type]
        listing = replace(listing, withheld=(WithheldModel("a/a", "It has another."),))
        await sync.sync(None)  # type: ignore[arg-type]
    warned = [one["models"] for one in logs if one["event"] == "catalogue_models_withheld"]
    assert warned == [{"a/a": "It has one fault."}, {"a/a": "It has another."}]
    assert registry.get_sample_value("tollkeeper_catalogue_withheld_models") == 1
