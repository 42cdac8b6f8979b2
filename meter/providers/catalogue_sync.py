"""Brings the catalogue up to date with the providers: at start, then on a schedule."""

import asyncio
import contextlib
from itertools import islice
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import ProviderUnavailable, SealBroken, StoreUnavailable
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.doubt_store import DoubtStore
from meter.pricing.doubts import WHOLE_LISTING, Doubt, find_doubts
from meter.pricing.prices import DEFAULT_PROVIDER, Model
from meter.process.periodic import periodic
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.per_provider import for_each_provider
from meter.providers.provider import OfferedCatalogue, Provider
from meter.providers.registry import ProviderRegistry
from meter.providers.unpriced import PriceSources, find_prices, names_in_catalogue

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 30.0
# All of them are listed by `tollkeeper catalogue`.
MAX_LOGGED: Final = 50
EXAMPLES: Final = 3

_log = structlog.get_logger(__name__)


class SyncMetrics:
    """The metrics of the syncs of all providers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.models = Gauge(
            "tollkeeper_catalogue_models", "Models offered now.", ["provider"], registry=registry
        )
        self.withheld = Gauge(
            "tollkeeper_catalogue_withheld_models",
            "Models that the provider lists and that are not offered.",
            ["provider"],
            registry=registry,
        )
        self.doubted = Gauge(
            "tollkeeper_catalogue_doubts",
            "Findings of the provider's listing that are not believed yet.",
            ["provider"],
            registry=registry,
        )
        self.failures = Counter(
            "tollkeeper_catalogue_sync_failures",
            "Syncs that failed.",
            ["provider"],
            registry=registry,
        )

    def begin(self, provider: str) -> None:
        """Let the series of a provider exist from the start."""
        self.failures.labels(provider)
        for gauge in (self.models, self.withheld, self.doubted):
            gauge.labels(provider)

    def forget(self, provider: str) -> None:
        """Remove the series of a provider that is disabled or deleted."""
        for metric in (self.models, self.withheld, self.doubted, self.failures):
            with contextlib.suppress(KeyError):
                metric.remove(provider)


class CatalogueSync:
    """Fetches the models of one provider, and stores the prices that changed."""

    def __init__(
        self,
        catalogue: PostgresCatalogue,
        doubts: DoubtStore,
        keys: PostgresProviderKeys,
        provider: Provider,
        every_s: float,
        metrics: SyncMetrics,
    ) -> None:
        self._catalogue = catalogue
        self._doubts = doubts
        self._keys = keys
        self._provider = provider
        self._every_s = every_s
        self._metrics = metrics
        self._now = asyncio.Event()
        self._reasons: dict[str, str] = {}
        self._logged_doubts: set[Doubt] = set()
        self.is_synced = False
        # Why the last attempt failed; None after one that worked.
        self.failure: str | None = None

    async def run(self) -> None:
        """Sync until cancelled; after a failure the next attempt comes sooner."""
        self._metrics.begin(self._provider.id)
        async with aiohttp.ClientSession() as session:

            async def sync() -> None:
                self._now.clear()
                try:
                    await self.sync(session)
                except (ProviderUnavailable, SealBroken) as error:
                    if self.failure != str(error):
                        self.failure = str(error)
                        _log.error(
                            "catalogue_sync_failed",
                            provider=self._provider.id,
                            reason=self.failure,
                        )
                    await self._catalogue.note_failure(self._provider.id, str(error))
                    raise
                self.failure = None

            try:
                await periodic(
                    "catalogue_sync",
                    sync,
                    self._every_s,
                    RETRY_FIRST_S,
                    (ProviderUnavailable, StoreUnavailable, SealBroken),
                    most_retry_s=RETRY_MOST_S,
                    on_outage=lambda _: self._metrics.failures.labels(self._provider.id).inc(),
                    sleep=self._pause,
                )
            finally:
                self._metrics.forget(self._provider.id)

    def wake(self) -> None:
        """Let the next sync come now."""
        self._now.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._now.wait(), seconds)

    async def sync(self, session: aiohttp.ClientSession) -> int:
        """Fetch and store once; return how many prices are new.

        A listing that lost many models is not stored, and a price that changed by a large factor
        keeps the one in force, until an equal listing or an administrator confirms it.
        Raises ProviderUnavailable for an empty catalogue too: a provider that lists nothing
        is broken, and an empty catalogue would refuse every request.
        """
        provider = self._provider
        key = await self._keys.find_key(provider.id, SYSTEM_OWNER)
        offered = await provider.dialect.fetch_catalogue(
            session, provider.base_url, None if key is None else key.plain
        )
        if offered.unpriced:
            offered = find_prices(provider, offered, await self._price_sources())
        if not offered.models and provider.id == DEFAULT_PROVIDER:
            raise ProviderUnavailable(_without_models(provider, offered))
        doubts = find_doubts(await self._known_models(), offered.models)
        doubted = await self._doubts.judge(provider.id, doubts)
        self._note_doubts([doubt for doubt in doubts if doubt.subject in doubted])
        if WHOLE_LISTING in doubted:
            self.is_synced = True
            return 0
        new_prices = await self._catalogue.save(
            provider.id, offered.models, offered.withheld, doubted
        )
        self._metrics.models.labels(provider.id).set(len(offered.models))
        self._note_withheld({model.id: model.reason for model in offered.withheld})
        self.is_synced = True
        _log.info(
            "catalogue_synced",
            provider=provider.id,
            models=len(offered.models),
            withheld=len(offered.withheld),
            new_prices=new_prices,
        )
        if not offered.models:
            raise ProviderUnavailable(_without_models(provider, offered))
        return new_prices

    async def _price_sources(self) -> PriceSources:
        own = await self._catalogue.load_prices(self._provider.id)
        listings = await self._catalogue.load_listings()
        return PriceSources(
            own,
            names_in_catalogue(
                listing for listing in listings if listing.model.price.provider == DEFAULT_PROVIDER
            ),
        )

    async def _known_models(self) -> dict[str, Model]:
        """Return the models that the provider offers until now."""
        if self._provider.id == DEFAULT_PROVIDER:
            return await self._catalogue.load_models()
        offers = await self._catalogue.load_offers()
        return {one.model.id: one.model for one in offers if one.provider == self._provider.id}

    def _note_doubts(self, doubts: list[Doubt]) -> None:
        """Warn once for each finding that is not believed."""
        self._metrics.doubted.labels(self._provider.id).set(len(doubts))
        for doubt in islice(doubts, MAX_LOGGED):
            if doubt not in self._logged_doubts:
                _log.error(
                    "catalogue_doubted",
                    provider=self._provider.id,
                    subject=doubt.subject or "listing",
                    explanation=doubt.explanation,
                )
        self._logged_doubts = set(doubts)

    def _note_withheld(self, reasons: dict[str, str]) -> None:
        """Warn once for each model that is withheld newly, or for another reason."""
        self._metrics.withheld.labels(self._provider.id).set(len(reasons))
        new = {name: why for name, why in reasons.items() if self._reasons.get(name) != why}
        if new:
            shown = dict(islice(new.items(), MAX_LOGGED))
            _log.warning(
                "catalogue_models_withheld",
                provider=self._provider.id,
                count=len(new),
                models=shown,
            )
        self._reasons = reasons


class CatalogueSyncs:
    """The syncs of all enabled providers, each in a task of its own."""

    def __init__(
        self,
        providers: ProviderRegistry,
        catalogue: PostgresCatalogue,
        doubts: DoubtStore,
        keys: PostgresProviderKeys,
        every_s: float,
        registry: CollectorRegistry,
    ) -> None:
        self._providers = providers
        self._catalogue = catalogue
        self._doubts = doubts
        self._keys = keys
        self._every_s = every_s
        self._metrics = SyncMetrics(registry)
        self._syncs: dict[str, CatalogueSync] = {}

    async def run(self) -> None:
        """Sync every enabled provider until cancelled."""
        await for_each_provider(self._providers, "catalogue sync", self._sync)

    async def _sync(self, provider: Provider) -> None:
        sync = CatalogueSync(
            self._catalogue, self._doubts, self._keys, provider, self._every_s, self._metrics
        )
        self._syncs[provider.id] = sync
        try:
            await sync.run()
        finally:
            if self._syncs.get(provider.id) is sync:
                del self._syncs[provider.id]

    def wake(self, provider_id: str) -> None:
        """Sync a provider now; one that is not synced here is passed over."""
        if (sync := self._syncs.get(provider_id)) is not None:
            sync.wake()

    def problem(self) -> str | None:
        """Return which catalogues are not synced, and why; None where all are."""
        problems = [
            f"{provider_id}: {sync.failure or 'not synced since this meter started'}"
            for provider_id, sync in self._syncs.items()
            if sync.failure is not None or not sync.is_synced
        ]
        if not self._syncs:
            return "not synced since this meter started"
        return "; ".join(sorted(problems)) or None


def _without_models(provider: Provider, listed: OfferedCatalogue) -> str:
    """Return what is wrong with a listing of which no model can be offered, and what to do."""
    if not listed.withheld:
        return f"GET /models of {provider.base_url} lists no model"
    examples = ", ".join(model.id for model in listed.withheld[:EXAMPLES])
    count = len(listed.withheld)
    if provider.id != DEFAULT_PROVIDER:
        return (
            f"GET /models lists {count} models and none has a price ({examples}): import prices"
            f" (tollkeeper prices import FILE --provider {provider.id}), or say that they cost"
            f" nothing (tollkeeper providers change {provider.id} --free)"
        )
    return (
        f"GET /models of {provider.base_url} lists {count} models and none has a price"
        f" ({examples}), so it is not OpenRouter: add it as a provider of its own"
        " (tollkeeper providers create NAME --dialect openai_compatible --base-url URL) and import"
        " its prices"
        " (tollkeeper prices import FILE --provider NAME)"
    )
