"""Marks the own keys that providers refused, as the logs tell, so that their owners see it."""

import asyncio
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.process.periodic import until_done
from meter.providers.key_service import FORMER_KEY_FOR
from meter.settlement.changes import RefusedKey, SettlementChanges

_NOTE_OWN_KEY_REFUSAL: Final = queries("meter.providers")["note_own_key_refusal"]

MOST_WAITING: Final = 10_000
WRITE_EVERY_S: Final = 0.5
RETRY_S: Final = 1.0
REASONS: Final = {
    401: "the provider does not know the key, or it was disabled or revoked",
    402: "the provider has no credit left for the key",
    403: "the provider does not let the key be used",
}

_log = structlog.get_logger(__name__)


class OwnKeyRefusals:
    """One task of a meter that marks refused keys, with a bounded collection before it."""

    def __init__(self, pool: PostgresPool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._waiting: dict[tuple[str, str], RefusedKey] = {}
        self._has_some = asyncio.Event()
        self._refused = Counter(
            "tollkeeper_own_key_refusals",
            "Requests that a provider refused because of the account's own key.",
            ["provider", "status"],
            registry=registry,
        )

    def note(self, changes: SettlementChanges) -> None:
        """Remember the refusals of a committed batch, the latest of each key; never waits."""
        for refused in changes.keys_refused:
            if refused.owner is None:
                continue
            self._refused.labels(refused.provider, str(refused.status)).inc()
            key = (refused.owner, refused.provider)
            if key in self._waiting or len(self._waiting) < MOST_WAITING:
                self._waiting[key] = refused
        if self._waiting:
            self._has_some.set()

    async def run(self) -> None:
        """Write marks until cancelled, through outages."""
        while True:
            await self._has_some.wait()
            await until_done("own_key_refusals", self.write, RETRY_S, (StoreUnavailable,))
            await asyncio.sleep(WRITE_EVERY_S)

    async def write(self) -> None:
        """Mark the keys that were refused since the last time. Raises StoreUnavailable."""
        while self._waiting:
            key, refused = next(iter(self._waiting.items()))
            async with acquire(self._pool) as connection:
                await connection.execute(
                    _NOTE_OWN_KEY_REFUSAL,
                    refused.provider,
                    refused.owner,
                    refused.began_at,
                    refused.status,
                    REASONS[refused.status],
                    FORMER_KEY_FOR,
                )
            if self._waiting.get(key) is refused:
                del self._waiting[key]
            _log.warning(
                "own_key_refused",
                account_id=refused.owner,
                provider=refused.provider,
                status=refused.status,
            )
        self._has_some.clear()
