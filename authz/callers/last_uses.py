"""When credentials were last used, kept here and written now and then for many at once."""

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
        """Remember a use. When too many are kept, because nobody takes them, new ones are not."""
        if credential_id in self._latest or len(self._latest) < MAX_KEPT:
            self._latest[credential_id] = at

    async def write(self, uses: PostgresCredentialUses) -> None:
        """Write what was noted. After an outage, which it raises, the next call writes it too."""
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
