"""The enabled providers, as the snapshot of the catalogue knows them."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from meter.providers.dialects import DIALECTS
from meter.providers.key_store import StoredKey
from meter.providers.provider import Dialect, DialectName
from meter.routing.table import RoutingTable
from meter.sealing import SecretText

# The credential for a server of our own that asks for none. Envoy sends no header then, and not the
# client's either.
NO_KEY: Final = SecretText("")


class Providers(NamedTuple):
    """The routing table, and the dialects and keys of ours of the enabled providers."""

    table: RoutingTable
    dialects: Mapping[str, DialectName]
    keys: Mapping[str, StoredKey]

    def dialect(self, provider: str) -> Dialect:
        """Return the dialect of an enabled provider."""
        return DIALECTS[self.dialects[provider]]

    def find_key(self, provider: str) -> SecretText | None:
        """Return our key of a provider; None where the provider needs one and none is set."""
        stored = self.keys.get(provider)
        if stored is not None:
            return stored.plain
        return None if self.dialect(provider).needs_key else NO_KEY

    def is_refused(self, provider: str) -> bool:
        """Return whether the provider refused our key lately."""
        stored = self.keys.get(provider)
        return stored is not None and stored.refusal is not None
