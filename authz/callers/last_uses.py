"""When credentials were last used, kept here and written now and then for many at once."""

import asyncio
from datetime import datetime
from typing import Final

import structlog

from meter.errors import Outage
from meter.identity.principal import CredentialUses

WRITE_EVERY_S: Final = 10.0
MAX_KEPT: Final = 100_000

_log = structlog.get_logger(__name__)


class LastUses:
    """The latest use of each credential since the last write."""

    def __init__(self) -> None:
        self._latest: dict[str, datetime] = {}

    def note(self, credential_id: str, at: datetime) -> None:
        """Remember a use. When too many are kept, because nobody takes them, new ones are not."""
        if credential_id in self._latest or len(self._latest) < MAX_KEPT:
            self._latest[credential_id] = at

    async def write(self, uses: CredentialUses) -> None:
        """Write what was noted; after an outage it is tried again with what came since."""
        noted, self._latest = self._latest, {}
        if not noted:
            return
        try:
            await uses.note(noted)
        except Outage as error:
            self._latest = {**noted, **self._latest}
            _log.warning("last_uses_kept_back", credentials=len(noted), reason=str(error))

    async def keep_writing(self, uses: CredentialUses) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write(uses)
