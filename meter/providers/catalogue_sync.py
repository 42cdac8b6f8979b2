"""Brings the catalogue up to date with the provider: at start, then on a schedule."""

from itertools import islice
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import ProviderUnavailable, SealBroken, StoreUnavailable
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.process.periodic import periodic
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.provider import Provider

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 30.0
# All of them are listed by `tollkeeper catalogue withheld`.
MAX_WITHHELD_LOGGED: Final = 50

_log = structlog.get_logger(__name__)


class CatalogueSync:
    """Fetches the provider's models, and stores the prices that changed."""

    def __init__(
        self,
        catalogue: PostgresCatalogue,
        keys: PostgresProviderKeys,
        provider: Provider,
        every_s: float,
        registry: CollectorRegistry,
    ) -> None:
        self._catalogue = catalogue
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

        Raises ProviderUnavailable for an empty catalogue too: a provider that lists nothing
        is broken, and an empty catalogue would refuse every request.
        """
        provider = self._provider
        key = await self._keys.find_key(provider.id, SYSTEM_OWNER)
        offered = await provider.fetch_catalogue(session, provider.base_url, key)
        if not offered.models:
            raise ProviderUnavailable(
                f"GET /models lists no model with a price ({len(offered.withheld)} without)"
            )
        new_prices = await self._catalogue.save(provider.id, offered.models, offered.withheld)
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

    def _note_withheld(self, reasons: dict[str, str]) -> None:
        """Warn once for each model that is withheld newly, or for another reason."""
        self._withheld.set(len(reasons))
        new = {name: why for name, why in reasons.items() if self._reasons.get(name) != why}
        if new:
            shown = dict(islice(new.items(), MAX_WITHHELD_LOGGED))
            _log.warning("catalogue_models_withheld", count=len(new), models=shown)
        self._reasons = reasons
