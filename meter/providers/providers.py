"""Puts the parts together that know providers: their rows, keys, catalogues and prices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from meter.audit.events import Actor
from meter.errors import Conflict, ProviderUnavailable, SealBroken
from meter.postgres.pool import PostgresPool
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.doubt_store import DoubtStore
from meter.pricing.price_lists import ListedPrice, PriceImport, PriceLists
from meter.pricing.prices import DEFAULT_PROVIDER
from meter.providers.base_urls import BaseUrlRefused, BaseUrls
from meter.providers.catalogue_sync import CatalogueSyncs
from meter.providers.dialects import DIALECTS
from meter.providers.key_service import ProviderKeyServices
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys, ProviderKeyListing
from meter.providers.openrouter.provider import OPENROUTER
from meter.providers.provider import DialectName, Provider, ProviderState
from meter.providers.provider_store import ProviderStore, ProviderTerms, SyncState
from meter.providers.registry import ProviderRegistry
from meter.sealing import SecretText


@dataclass(frozen=True, slots=True)
class ProviderListing:
    """A provider with the facts about its key that may be shown, and its last sync."""

    provider: Provider
    key: ProviderKeyListing | None
    sync: SyncState | None


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """The result of a check: what is wrong, None where nothing is; and the models it lists."""

    problem: str | None
    models: int


class Providers:
    """Makes, changes, checks and deletes providers; changes take effect here at once."""

    def __init__(
        self,
        pool: PostgresPool,
        keys: PostgresProviderKeys,
        registry: CollectorRegistry,
        openrouter_base_url: str,
        base_urls: BaseUrls,
        sync_every_s: float,
    ) -> None:
        self.default = OPENROUTER.at(openrouter_base_url)
        self.store = ProviderStore(pool, openrouter_base_url)
        self.stored_keys = keys
        self._base_urls = base_urls
        self._price_lists = PriceLists(pool)
        self.registry = ProviderRegistry(self.store, (self.default,))
        self.keys = ProviderKeyServices(keys, self.registry, registry)
        self.syncs = CatalogueSyncs(
            self.registry,
            PostgresCatalogue(pool),
            DoubtStore(pool),
            keys,
            sync_every_s,
            registry,
        )

    async def list_all(self) -> list[ProviderListing]:
        """Return all providers, `openrouter` first."""
        providers = await self.store.list_all()
        syncs = await self.store.list_syncs()
        keys = {
            one.provider: one
            for one in await self.stored_keys.list_keys()
            if one.owner == SYSTEM_OWNER
        }
        return [ProviderListing(one, keys.get(one.id), syncs.get(one.id)) for one in providers]

    async def get(self, provider_id: str) -> ProviderListing:
        """Return a provider. Raises NotFound."""
        await self.registry.refresh()
        self.registry.get(provider_id)
        return next(one for one in await self.list_all() if one.provider.id == provider_id)

    async def create(
        self,
        provider_id: str,
        dialect: DialectName,
        base_url: str | None,
        model_prefix: str | None,
        is_free: bool,
        actor: Actor,
    ) -> ProviderListing:
        """Make a provider; its models are offered as soon as they are listed and have prices.

        Raises BaseUrlRefused, and Conflict.
        """
        if dialect is DialectName.OPENROUTER:
            raise Conflict(
                "openrouter is there already, and there is only one provider of its dialect"
            )
        known = DIALECTS[dialect]
        base_url = base_url or known.base_url
        if base_url is None:
            raise BaseUrlRefused(f"a provider of the dialect {dialect} needs a base URL")
        if model_prefix is None:
            # Without a prefix of its own, a name of its own could be that of another's model.
            model_prefix = known.model_prefix or f"{provider_id}/"
        terms = ProviderTerms(self._base_urls.require(base_url), model_prefix, is_free)
        await self.store.create(provider_id, dialect, terms, actor)
        return await self.get(provider_id)

    async def change(
        self, provider_id: str, changes: Mapping[str, Any], actor: Actor
    ) -> ProviderListing:
        """Change terms of a provider. Raises NotFound, BaseUrlRefused and Conflict."""
        base_url = changes.get("base_url")
        if base_url is not None:
            changes = {**changes, "base_url": self._base_urls.require(base_url)}
        await self.store.change(provider_id, changes, actor)
        found = await self.get(provider_id)
        self.syncs.wake(provider_id)
        return found

    async def set_state(
        self, provider_id: str, state: ProviderState, actor: Actor
    ) -> ProviderListing:
        """Enable or disable a provider. Raises NotFound."""
        await self.store.set_state(provider_id, state, actor)
        return await self.get(provider_id)

    async def delete(self, provider_id: str, actor: Actor) -> None:
        """Delete a provider. Raises NotFound, and Conflict while it is needed."""
        await self.store.delete(provider_id, actor)
        await self.registry.refresh()

    async def set_key(
        self, provider_id: str, plain: SecretText, is_forced: bool, actor: Actor
    ) -> None:
        """Set the key of a provider; raises as `ProviderKeyService.set_key` does, and NotFound."""
        await self.registry.refresh()
        await self.keys.get(provider_id).set_key(plain, is_forced, actor)
        self.syncs.wake(provider_id)

    async def check(self, provider_id: str) -> ProviderCheck:
        """Ask a provider for its models, which costs nothing; return what is wrong.

        Raises NotFound.
        """
        await self.registry.refresh()
        provider = self.registry.get(provider_id)
        try:
            stored = await self.stored_keys.find_key(provider_id, SYSTEM_OWNER)
        except SealBroken as error:
            return ProviderCheck(str(error), 0)
        key = None if stored is None else stored.plain
        if key is None and provider.dialect.needs_key:
            return ProviderCheck(f"no key is set: tollkeeper providers set-key {provider_id}", 0)
        try:
            async with aiohttp.ClientSession() as session:
                refusal = await provider.dialect.check_key(session, provider.base_url, key)
                if refusal is not None:
                    return ProviderCheck(refusal.advice(provider_id), 0)
                listed = await provider.dialect.fetch_catalogue(session, provider.base_url, key)
        except ProviderUnavailable as error:
            return ProviderCheck(
                f"{error}; it was asked at {provider.base_url}, so see whether that address is"
                " right and can be reached from the meter",
                0,
            )
        models = len(listed.models) + len(listed.unpriced)
        if not models:
            return ProviderCheck(f"{provider.base_url}/models lists no model that can be used", 0)
        sync = (await self.store.list_syncs()).get(provider_id)
        if provider.is_enabled and sync is not None and sync.failure is not None:
            return ProviderCheck(sync.failure, models)
        return ProviderCheck(None, models)

    async def import_prices(
        self,
        provider_id: str,
        prices: list[ListedPrice],
        is_zero_allowed: bool,
        actor: Actor,
    ) -> PriceImport:
        """Store an administrator's price list of a provider.

        Models are named as here or as the provider does. Raises NotFound, Conflict, and what
        `PriceLists.import_prices` raises.
        """
        await self.registry.refresh()
        provider = self.registry.get(provider_id)
        if provider_id == DEFAULT_PROVIDER:
            # It lists no price of a search for some. Without one, no hold would bound the cost.
            rerankers = await self._price_lists.find_rerankers([one.model_id for one in prices])
            if not all(one.is_of_searches and one.model_id in rerankers for one in prices):
                raise Conflict(
                    "openrouter names its costs itself, so it has no price list: only models that"
                    " it lists for reranking may have a price of a search (request_usd), and no"
                    " other price"
                )
        prefix = provider.model_prefix
        named = [
            price
            if price.model_id.startswith(prefix)
            else replace(price, model_id=prefix + price.model_id)
            for price in prices
        ]
        imported = await self._price_lists.import_prices(provider_id, named, is_zero_allowed, actor)
        self.syncs.wake(provider_id)
        return imported
