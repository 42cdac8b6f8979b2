"""Brings the catalogue up to date with the provider: at start, then on a schedule."""

from itertools import islice
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import ProviderUnavailable, SealBroken, StoreUnavailable
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.doubt_store import DoubtStore
from meter.pricing.doubts import WHOLE_LISTING, Doubt, find_doubts
from meter.process.periodic import periodic
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.provider import Provider

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 30.0
# All of them are listed by `tollkeeper catalogue`.
MAX_LOGGED: Final = 50

_log = structlog.get_logger(__name__)


class CatalogueSync:
    """Fetches the provider's models, and stores the prices that changed."""

    def __init__(
        self,
        catalogue: PostgresCatalogue,
        doubts: DoubtStore,
        keys: PostgresProviderKeys,
        provider: Provider,
        every_s: float,
        registry: CollectorRegistry,
    ) -> None:
        self._catalogue = catalogue
        self._doubts = doubts
        self._keys = keys
        self._provider = provider
        self._every_s = every_s
        self.is_synced = False
        self._models = Gauge(
            "tollkeeper_catalogue_models", "Models offered now.", registry=registry
        )
        self._withheld = Gauge(
            "tollkeeper_catalogue_withheld_models",
            "Models that the provider lists and that are not offered.",
            registry=registry,
        )
        self._reasons: dict[str, str] = {}
        self._doubted = Gauge(
            "tollkeeper_catalogue_doubts",
            "Findings of the provider's listing that are not believed yet.",
            registry=registry,
        )
        self._logged_doubts: set[Doubt] = set()
        self._failures = Counter(
            "tollkeeper_catalogue_sync_failures", "Syncs that failed.", registry=registry
        )

    async def run(self) -> None:
        """Sync until cancelled; after a failure the next attempt comes sooner."""
        async with aiohttp.ClientSession() as session:

            async def sync() -> None:
                await self.sync(session)

            await periodic(
                "catalogue_sync",
                sync,
                self._every_s,
                RETRY_FIRST_S,
                (ProviderUnavailable, StoreUnavailable, SealBroken),
                most_retry_s=RETRY_MOST_S,
                on_outage=lambda _: self._failures.inc(),
            )

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
        if not offered.models:
            raise ProviderUnavailable(
                f"GET /models lists no model with a price ({len(offered.withheld)} without)"
            )
        doubts = find_doubts(await self._catalogue.load_models(), offered.models)
        doubted = await self._doubts.judge(provider.id, doubts)
        self._note_doubts([doubt for doubt in doubts if doubt.subject in doubted])
        if WHOLE_LISTING in doubted:
            self.is_synced = True
            return 0
        new_prices = await self._catalogue.save(
            provider.id, offered.models, offered.withheld, doubted
        )
        self._models.set(len(offered.models))
        self._note_withheld({model.id: model.reason for model in offered.withheld})
        self.is_synced = True
        _log.info(
            "catalogue_synced",
            models=len(offered.models),
            withheld=len(offered.withheld),
            new_prices=new_prices,
        )
        return new_prices

    def _note_doubts(self, doubts: list[Doubt]) -> None:
        """Warn once for each finding that is not believed."""
        self._doubted.set(len(doubts))
        for doubt in islice(doubts, MAX_LOGGED):
            if doubt not in self._logged_doubts:
                _log.error(
                    "catalogue_doubted",
                    subject=doubt.subject or "listing",
                    explanation=doubt.explanation,
                )
        self._logged_doubts = set(doubts)

    def _note_withheld(self, reasons: dict[str, str]) -> None:
        """Warn once for each model that is withheld newly, or for another reason."""
        self._withheld.set(len(reasons))
        new = {name: why for name, why in reasons.items() if self._reasons.get(name) != why}
        if new:
            shown = dict(islice(new.items(), MAX_LOGGED))
            _log.warning("catalogue_models_withheld", count=len(new), models=shown)
        self._reasons = reasons
