"""Keeps the catalogue what the provider offers: at start, then on a schedule."""

import asyncio
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import ProviderUnavailable, SealBroken, StoreUnavailable
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.providers.key_store import SYSTEM_OWNER
from meter.providers.openrouter.catalogue import PROVIDER, OfferedCatalogue, fetch_catalogue
from meter.providers.provider_keys import ProviderKeys

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 30.0

_log = structlog.get_logger(__name__)


class CatalogueSync:
    """One task that fetches the provider's models and stores prices that changed."""

    def __init__(
        self,
        catalogue: PostgresCatalogue,
        keys: ProviderKeys,
        base_url: str,
        every_s: float,
        registry: CollectorRegistry,
    ) -> None:
        self._catalogue = catalogue
        self._keys = keys
        self._base_url = base_url.rstrip("/")
        self._every_s = every_s
        self.is_synced = False
        self._models = Gauge(
            "tollkeeper_catalogue_models", "Models offered now.", registry=registry
        )
        self._failures = Counter(
            "tollkeeper_catalogue_sync_failures", "Syncs that failed.", registry=registry
        )

    async def run(self) -> None:
        """Sync for ever; a failed sync is tried again sooner than a good one is repeated."""
        retry_s = RETRY_FIRST_S
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    await self.sync(session)
                except (ProviderUnavailable, StoreUnavailable, SealBroken) as error:
                    self._failures.inc()
                    _log.warning("catalogue_sync_failed", reason=str(error), retry_in_s=retry_s)
                    await asyncio.sleep(retry_s)
                    retry_s = min(retry_s * 2, RETRY_MOST_S)
                else:
                    retry_s = RETRY_FIRST_S
                    await asyncio.sleep(self._every_s)

    async def sync(self, session: aiohttp.ClientSession) -> int:
        """Fetch and store once; returns how many prices are new.

        Raises ProviderUnavailable for an empty catalogue too: a provider that lists nothing
        is broken, and believing it would refuse every request.
        """
        key = await self._keys.find_key(PROVIDER, SYSTEM_OWNER)
        offered = await fetch_catalogue(session, self._base_url, key)
        if not offered.models:
            raise ProviderUnavailable(
                f"GET /models lists no model with a price ({offered.unpriced} without)"
            )
        return await self._store(offered)

    async def _store(self, offered: OfferedCatalogue) -> int:
        new_prices = await self._catalogue.save(PROVIDER, offered.models)
        self._models.set(len(offered.models))
        self.is_synced = True
        _log.info(
            "catalogue_synced",
            models=len(offered.models),
            unpriced=offered.unpriced,
            new_prices=new_prices,
        )
        return new_prices
