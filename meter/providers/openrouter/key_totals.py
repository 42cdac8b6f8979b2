"""The provider's total of the key in use, with the version of that key."""

import aiohttp

from meter.errors import ProviderUnavailable
from meter.money import picos_from_decimal
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.openrouter.catalogue import PROVIDER
from meter.providers.openrouter.key_usage import fetch_key_usage
from meter.reconciliation.drift import ProviderTotal


class KeyTotals:
    """Implements `meter.reconciliation.reconciler.ProviderTotals` for OpenRouter."""

    def __init__(self, keys: PostgresProviderKeys, base_url: str) -> None:
        self._keys = keys
        self._base_url = base_url.rstrip("/")

    async def find_total(self) -> ProviderTotal | None:
        """The total of the key in use; None where no key is set.

        Raises ProviderUnavailable when the provider does not answer or the key was changed
        meanwhile, SealBroken for a key under another master key, StoreUnavailable.
        """
        version = await self._version()
        key = await self._keys.find_key(PROVIDER, SYSTEM_OWNER)
        if key is None or version is None:
            return None
        async with aiohttp.ClientSession() as session:
            usage_usd = await fetch_key_usage(session, self._base_url, key)
        if await self._version() != version:
            raise ProviderUnavailable("the provider's key was changed meanwhile")
        return ProviderTotal(PROVIDER, version, picos_from_decimal(usage_usd))

    async def _version(self) -> int | None:
        for listing in await self._keys.list_keys():
            if (listing.provider, listing.owner) == (PROVIDER, SYSTEM_OWNER):
                return listing.key_version
        return None
