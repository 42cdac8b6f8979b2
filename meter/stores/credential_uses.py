"""When credentials were last used, in Postgres."""

from collections.abc import Mapping
from datetime import datetime

from meter.stores.postgres import PostgresPool, acquire, query


class PostgresCredentialUses:
    """Implements `meter.ports.CredentialUses`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def note(self, latest: Mapping[str, datetime]) -> None:
        """Write the latest use of each, in the order of their ids: two instances may write."""
        ids = sorted(latest)
        async with acquire(self._pool) as connection:
            await connection.execute(
                query("note_credential_uses"), ids, [latest[credential_id] for credential_id in ids]
            )
