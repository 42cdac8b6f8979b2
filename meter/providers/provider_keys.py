"""The keys with which providers are called."""

from typing import Final, Protocol

from meter.sealing import SecretText

# The owner of the key that requests of all accounts go out with.
SYSTEM_OWNER: Final = "system"


class ProviderKeys(Protocol):
    """The sealed keys with which providers are called."""

    async def find_key(self, provider: str, owner: str) -> SecretText | None:
        """Return the opened key; None when none was set.

        Raises SealBroken when the key was sealed under another master key.
        """
        ...
