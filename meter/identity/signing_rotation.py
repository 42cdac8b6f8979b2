"""Rotates signing keys and deletes old passes. Several meters may run it at the same time."""

from datetime import timedelta
from typing import Final

import structlog

from meter.audit.events import SYSTEM
from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.identity.pass_store import FORGOTTEN_AT_ONCE, PassStore
from meter.identity.signing_key_store import SigningKeys
from meter.process.periodic import periodic

EVERY_S: Final = 60.0
RETRY_S: Final = 1.0
# Longer than a hold lives, so that no live hold refers to a deleted pass.
KEPT_AFTER_END: Final = timedelta(hours=25)
PERIODS_KEPT: Final = timedelta(days=100)
# Limits the load on the database of one round after a long pause.
MAX_BATCHES: Final = 20

_log = structlog.get_logger(__name__)


class SigningRotation:
    """Rotates signing keys and deletes old passes, periodically."""

    def __init__(
        self, keys: SigningKeys, passes: PassStore, rotate_after: timedelta, clock: Clock
    ) -> None:
        self._keys = keys
        self._passes = passes
        self._rotate_after = rotate_after
        self._clock = clock

    async def run(self) -> None:
        """Run `once` periodically until cancelled; after an outage, retry."""
        await periodic("signing_rotation", self.once, EVERY_S, RETRY_S, (StoreUnavailable,))

    async def once(self) -> None:
        """Create a key if one is due, and delete old keys and passes. Raises StoreUnavailable."""
        made = await self._keys.ensure(self._rotate_after, SYSTEM)
        if made is not None:
            _log.info("signing_key_made", kid=made.kid, signs_from=made.signs_from.isoformat())
        await self._keys.forget_ended()
        now = self._clock.now()
        for _ in range(MAX_BATCHES):
            forgotten = await self._passes.forget(now - KEPT_AFTER_END, (now - PERIODS_KEPT).date())
            if max(forgotten) < FORGOTTEN_AT_ONCE:
                return
