"""Provider keys in Postgres, sealed under the master key."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from meter.credentials import SecretText
from meter.errors import Conflict, InvalidRequest
from meter.providers.seal import MasterKey, SealContext
from meter.stores.postgres import PostgresPool, acquire, query

SYSTEM_OWNER: Final = "system"
MAX_KEY_CHARS: Final = 512
HINT_CHARS: Final = 4
# A hint of a short key would give too much of it away.
SHORTEST_HINTED_KEY_CHARS: Final = 20


@dataclass(frozen=True, slots=True)
class ProviderKeyListing:
    """What may be shown of a stored provider key."""

    provider: str
    owner: str
    key_version: int
    hint: str
    updated_at: datetime


class PostgresProviderKeys:
    """Implements `meter.ports.ProviderKeys`, and lets administrators set keys."""

    def __init__(self, pool: PostgresPool, master_key: MasterKey) -> None:
        self._pool = pool
        self._master_key = master_key

    async def find_key(self, provider: str, owner: str) -> SecretText | None:
        """The opened key; None when none was set. Raises SealBroken under another master key."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query("find_provider_key"), provider, owner)
        if row is None:
            return None
        context = SealContext(provider, owner, row["key_version"])
        return self._master_key.open(row["sealed"], context)

    async def set_key(self, provider: str, owner: str, plain: SecretText) -> int:
        """Seal and store a key; returns its version. Raises InvalidRequest for an unusable one."""
        _must_be_usable(plain.reveal())
        async with acquire(self._pool) as connection, connection.transaction():
            version = await connection.fetchval(query("lock_provider_key_version"), provider, owner)
            new_version = (version or 0) + 1
            sealed = self._master_key.seal(plain, SealContext(provider, owner, new_version))
            status = await connection.execute(
                query("save_provider_key"), provider, owner, new_version, sealed, _hint(plain)
            )
        if status.endswith(" 0"):
            raise Conflict("another key was stored at the same moment; look and set it again")
        return new_version

    async def list_keys(self) -> list[ProviderKeyListing]:
        """Which keys are set."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(query("list_provider_keys"))
        return [ProviderKeyListing(**dict(row)) for row in rows]


def _must_be_usable(plain: str) -> None:
    if not plain or len(plain) > MAX_KEY_CHARS:
        raise InvalidRequest(f"a provider key has 1 to {MAX_KEY_CHARS} characters")
    if not all("!" <= char <= "~" for char in plain):
        raise InvalidRequest("a provider key has visible ASCII characters only")


def _hint(plain: SecretText) -> str:
    text = plain.reveal()
    return f"...{text[-HINT_CHARS:]}" if len(text) >= SHORTEST_HINTED_KEY_CHARS else "..."
