"""Collects the times at which credentials were last used, and writes them in batches."""

from datetime import datetime
from functools import partial
from typing import Final

from meter.errors import Outage
from meter.identity.last_use_store import PostgresCredentialUses
from meter.process.periodic import periodic

WRITE_EVERY_S: Final = 10.0
MAX_KEPT: Final = 100_000


class LastUses:
    """The latest use of each credential since the last write."""

    def __init__(self) -> None:
        self._latest: dict[str, datetime] = {}

    def note(self, credential_id: str, at: datetime) -> None:
        """Note a use. It is dropped when too many wait, because Postgres has been away."""
        if credential_id in self._latest or len(self._latest) < MAX_KEPT:
            self._latest[credential_id] = at

    async def write(self, uses: PostgresCredentialUses) -> None:
        """Write the noted times. Raises StoreUnavailable; the next call then writes them too."""
        noted, self._latest = self._latest, {}
        if not noted:
            return
        try:
            await uses.note(noted)
        except Outage:
            self._latest = {**noted, **self._latest}
            raise

    async def keep_writing(self, uses: PostgresCredentialUses) -> None:
        """Write at intervals until cancelled."""
        await periodic(
            "last_uses",
            partial(self.write, uses),
            WRITE_EVERY_S,
            WRITE_EVERY_S,
            (Outage,),
            first_after_s=WRITE_EVERY_S,
        )
