"""The keys with which providers are called."""

from typing import Protocol

from meter.sealing import SecretText


class ProviderKeys(Protocol):
    """The sealed keys with which providers are called."""

    async def find_key(self, provider: str, owner: str) -> SecretText | None:
        """The opened key; None when none was set. Raises SealBroken under another master key."""
        ...
