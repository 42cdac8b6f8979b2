"""The provider's total of the key in use, with the version of that key."""

import aiohttp

from meter.errors import ProviderUnavailable
from meter.money import picos_from_decimal
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.provider import Provider
from meter.reconciliation.drift import ProviderTotal


class KeyTotals:
    """Asks a provider for its totals; implements `reconciler.ProviderTotals`."""

    def __init__(self, keys: PostgresProviderKeys, provider: Provider) -> None:
        self._keys = keys
        self._provider = provider

    async def find_total(self) -> ProviderTotal | None:
        """Return the total of the key in use; None where no key is set or nobody can
        be asked.

        Raises ProviderUnavailable when the provider does not answer or the key was changed
        meanwhile, SealBroken for a key under another master key, StoreUnavailable.
        """
        provider = self._provider
        fetch_total_usd = provider.dialect.fetch_total_usd
        if fetch_total_usd is None:
            return None
        key = await self._keys.find_key(provider.id, SYSTEM_OWNER)
        if key is None:
            return None
        async with aiohttp.ClientSession() as session:
            usage_usd = await fetch_total_usd(session, provider.base_url, key.plain)
        # A total belongs to one key: with a key that changed meanwhile, it is not known to which.
        now = await self._keys.find_key(provider.id, SYSTEM_OWNER)
        if now is None or now.key_version != key.key_version:
            raise ProviderUnavailable("the provider's key was changed meanwhile")
        return ProviderTotal(provider.id, key.key_version, picos_from_decimal(usage_usd))
