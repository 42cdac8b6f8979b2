"""The providers in memory, as they were last read from Postgres."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from meter.errors import NotFound, StoreUnavailable
from meter.process.periodic import periodic
from meter.providers.provider import Provider
from meter.providers.provider_store import ProviderStore
from meter.settlement.billing_terms import CAUTIOUS, BillingTerms

REFRESH_EVERY_S: Final = 1.0


class ProviderRegistry:
    """Finds providers by id. It begins with those given, and is kept fresh by `run`."""

    def __init__(self, store: ProviderStore, known: Sequence[Provider]) -> None:
        self._store = store
        self._providers: Mapping[str, Provider] = {one.id: one for one in known}
        # Set, and replaced by a new one, when a provider is added, changed or deleted.
        self.changed = asyncio.Event()

    @property
    def all(self) -> Sequence[Provider]:
        """Return all providers, disabled ones too; `openrouter` is the first."""
        return tuple(self._providers.values())

    def find(self, provider_id: str) -> Provider | None:
        """Return a provider; None where there is none with this id."""
        return self._providers.get(provider_id)

    def get(self, provider_id: str) -> Provider:
        """Return a provider. Raises NotFound."""
        provider = self._providers.get(provider_id)
        if provider is None:
            raise NotFound(f"there is no provider {provider_id}")
        return provider

    def billing(self, provider_id: str) -> BillingTerms:
        """Return the billing terms of a provider; those of one that is not known are cautious."""
        provider = self._providers.get(provider_id)
        return CAUTIOUS if provider is None else provider.dialect.billing

    async def refresh(self) -> None:
        """Read all providers. Raises StoreUnavailable."""
        found = {one.id: one for one in await self._store.list_all()}
        if found != self._providers:
            self._providers = found
            changed, self.changed = self.changed, asyncio.Event()
            changed.set()

    async def run(self) -> None:
        """Refresh until cancelled."""
        await periodic(
            "provider_refresh",
            self.refresh,
            REFRESH_EVERY_S,
            REFRESH_EVERY_S,
            (StoreUnavailable,),
        )
