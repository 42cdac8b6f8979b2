"""The catalogue in Postgres: every price comes back, and withheld models are listed."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter.errors import ProviderUnavailable
from meter.postgres.pool import PostgresConnection
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.doubt_store import DoubtStore
from meter.pricing.prices import Model, OfferedModel, WithheldModel
from meter.providers.catalogue_sync import CatalogueSync, SyncMetrics
from meter.providers.openrouter.provider import OPENROUTER
from meter.providers.provider import OfferedCatalogue
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import ReportedUsage, Source, TokenCounts
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
        settled = await PostgresSettlementStore(books.pool).settle(
            [observed(hold_id, usage=usage, source=Source.LOOKUP)]
        )
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


class Listing:
    """A provider whose listing tests change, and the sync that fetches it."""

    def __init__(self, books: Books, *models: OfferedModel) -> None:
        self.models = models
        self.withheld: tuple[WithheldModel, ...] = ()
        self.registry = CollectorRegistry()
        self.catalogue = PostgresCatalogue(books.pool)
        self._sync = CatalogueSync(
            self.catalogue,
            DoubtStore(books.pool),
            FakeProviderKeys(),
            replace(OPENROUTER, dialect=replace(OPENROUTER.dialect, fetch_catalogue=self._fetch)),
            60.0,
            SyncMetrics(self.registry),
        )

    async def _fetch(self, *_: object) -> OfferedCatalogue:
        return OfferedCatalogue(self.models, self.withheld)

    async def sync(self) -> dict[str, Model]:
        """Fetch once; return the models that are offered then."""
        async with aiohttp.ClientSession() as session:
            await self._sync.sync(session)
        return await self.catalogue.load_models()

    def metric(self, name: str) -> float | None:
        """The value of a metric of the sync."""
        return self.registry.get_sample_value(
            f"tollkeeper_catalogue_{name}", {"provider": "openrouter"}
        )


async def test_a_withheld_model_is_warned_of_once_a_change(books: Books) -> None:
    listing = Listing(books, offered())
    with capture_logs() as logs:
        for reason in ("One fault.", "One fault.", "Another."):
            listing.withheld = (WithheldModel("a/a", reason),)
            await listing.sync()
    warned = [one["models"] for one in logs if one["event"] == "catalogue_models_withheld"]
    assert warned == [{"a/a": "One fault."}, {"a/a": "Another."}]
    assert listing.metric("withheld_models") == 1


def many(count: int) -> tuple[OfferedModel, ...]:
    """So many models on offer."""
    return tuple(offered(f"acme/{place:03}") for place in range(count))


async def test_a_listing_that_lost_most_models_needs_a_second_look(
    books: Books, owner: PostgresConnection
) -> None:
    listing = Listing(books, *many(50))
    assert len(await listing.sync()) == 50
    listing.models = many(3)
    with capture_logs() as logs:
        for _ in range(3):
            assert len(await listing.sync()) == 50
    assert [one["event"] for one in logs if one["log_level"] == "error"] == ["catalogue_doubted"]
    assert listing.metric("doubts") == 1
    # Another loss is another finding, whose time begins anew.
    await owner.execute("UPDATE catalogue_doubts SET first_seen_at = now() - interval '61 minutes'")
    listing.models = many(4)
    assert len(await listing.sync()) == 50
    await owner.execute("UPDATE catalogue_doubts SET first_seen_at = now() - interval '61 minutes'")
    assert len(await listing.sync()) == 4
    assert len(await listing.sync()) == 4
    assert listing.metric("doubts") == 0
    assert not await DoubtStore(books.pool).list_all()


async def test_a_listing_that_comes_back_ends_the_doubt(books: Books) -> None:
    listing = Listing(books, *many(50))
    await listing.sync()
    listing.models = many(3)
    await listing.sync()
    listing.models = many(51)
    assert len(await listing.sync()) == 51
    assert not await DoubtStore(books.pool).list_all()


async def test_a_doubted_price_waits_and_the_rest_of_the_listing_does_not(
    books: Books, api: MeterApi
) -> None:
    listing = Listing(books, offered("acme/a"), offered("acme/b"))
    await listing.sync()
    listing.models = (offered("acme/a", prompt_picos=15), offered("acme/b", prompt_picos=160_000))
    models = await listing.sync()
    assert models["acme/a"].price.prompt_picos == 150_000
    assert models["acme/b"].price.prompt_picos == 160_000
    (doubt,) = (await api.operator.get("/api/v1/admin/catalogue/doubts")).json()["data"]
    assert (doubt["model"], doubt["accepted_at"]) == ("acme/a", None)
    path = "/api/v1/admin/catalogue/doubts/{}/acceptance"
    assert (await api.operator.put(path.format(doubt["id"]))).status_code == 204
    assert (await api.operator.put(path.format(UUID(int=1)))).status_code == 404
    # An acceptance is of what was shown, not of whatever comes next.
    accepted, listing.models = (
        listing.models,
        (offered("acme/a", prompt_picos=1), offered("acme/b")),
    )
    assert (await listing.sync())["acme/a"].price.prompt_picos == 150_000
    listing.models = accepted
    assert (await listing.sync())["acme/a"].price.prompt_picos == 150_000
    (doubt,) = (await api.operator.get("/api/v1/admin/catalogue/doubts")).json()["data"]
    await api.operator.put(path.format(doubt["id"]))
    assert (await listing.sync())["acme/a"].price.prompt_picos == 15
    lines = (await api.operator.get("/api/v1/admin/audit-log")).json()["data"]
    assert [one["subject"] for one in lines if one["action"] == "catalogue_doubt.accepted"] == (
        ["acme/a"] * 2
    )


async def test_an_upstream_without_prices_is_told_from_one_that_is_away(books: Books) -> None:
    listing = Listing(books)
    listing.withheld = (WithheldModel("llama", "It lists no prices."),)
    with pytest.raises(ProviderUnavailable, match=r"none has a price \(llama\)") as told:
        await listing.sync()
    assert "tollkeeper providers create" in str(told.value)
    assert "tollkeeper prices import" in str(told.value)
