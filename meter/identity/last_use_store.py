"""The times of the last use of credentials, in Postgres."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from meter.postgres.pool import PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.identity")
_NOTE_CREDENTIAL_USES: Final = _QUERIES["note_credential_uses"]


class PostgresCredentialUses:
    """Stores the time at which each credential was last used."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def note(self, latest: Mapping[str, datetime]) -> None:
        """Store the latest use of each credential; an older time changes nothing."""
        # Two instances may write at once: one order of locking keeps them from a deadlock.
        ids = sorted(latest)
        async with acquire(self._pool) as connection:
            await connection.execute(
                _NOTE_CREDENTIAL_USES, ids, [latest[credential_id] for credential_id in ids]
            )
