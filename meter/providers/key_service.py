"""Sets the key of a provider, and watches whether the provider accepts it.

Without a key that works, every request is answered with 503. An administrator sees that here, in
the readiness of meter and authz, in `tollkeeper status` and in an alarm, and not only in what
clients report.
"""

import asyncio
import contextlib
from collections import deque
from datetime import datetime, timedelta
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Gauge

from meter.audit.events import SYSTEM, Actor
from meter.errors import (
    InvalidRequest,
    MeterError,
    ProviderUnavailable,
    SealBroken,
    StoreUnavailable,
)
from meter.process.periodic import periodic
from meter.providers.key_refusal import KeyRefusal
from meter.providers.key_store import (
    SYSTEM_OWNER,
    PostgresProviderKeys,
    StoredKey,
    require_usable,
)
from meter.providers.per_provider import for_each_provider
from meter.providers.provider import Provider
from meter.providers.registry import ProviderRegistry
from meter.sealing import SecretText

CHECK_EVERY_S: Final = 30.0
RETRY_FIRST_S: Final = 1.0
RETRY_MOST_S: Final = 30.0
# A refusal stands for this long after the last one: some requests are refused although the
# provider accepts the key, and each meter sees only a part of the requests.
REFUSAL_STANDS_S: Final = 600.0
# It stands for so long only where the last so many requests that were served all began after it.
# The meters note refusals every CHECK_EVERY_S, so within this time each has seen the others'.
RECOVERED_AFTER_S: Final = 60.0
RECOVERED_REQUESTS: Final = 20
SERVED: Final = 200
# Requests that began so soon after a key was set may have been sent with the former one.
FORMER_KEY_FOR: Final = timedelta(seconds=10)

_log = structlog.get_logger(__name__)


class KeyNotTried(MeterError):
    """The provider could not be asked about a key; the message says how to store it anyway."""


class KeyRefused(InvalidRequest):
    """The provider does not accept the key; the message says why."""


async def try_key(provider: Provider, plain: SecretText, may_be_forced: bool) -> None:
    """Ask a provider about a key that is to be stored, by a call that costs nothing.

    Raises KeyRefused where the provider does not accept the key, KeyNotTried where it cannot be
    asked. Their messages tell administrators (`may_be_forced`) how to store the key all the same.
    """
    try:
        async with aiohttp.ClientSession() as session:
            refusal = await provider.dialect.check_key(session, provider.base_url, plain)
    except ProviderUnavailable as error:
        ways = "try again, or store it unchecked (--force)" if may_be_forced else "try again later"
        raise KeyNotTried(
            f"the key was not stored, because {provider.id} could not be asked whether it works"
            f" ({error}); {ways}"
        ) from error
    if refusal is not None:
        ways = ", or store this one all the same (--force)" if may_be_forced else ""
        raise KeyRefused(
            f"{provider.id} refuses the key with {refusal.status}: {refusal.reason}; it was not"
            f" stored. Use another key{ways}"
        )


def refused_gauge(registry: CollectorRegistry) -> Gauge:
    """Return the metric of the keys of all providers."""
    return Gauge(
        "tollkeeper_provider_key_refused",
        "1 while the provider refuses our key.",
        ["provider"],
        registry=registry,
    )


class ProviderKeyService:
    """The key with which requests of all accounts are sent to one provider."""

    def __init__(self, keys: PostgresProviderKeys, provider: Provider, refused: Gauge) -> None:
        self._keys = keys
        self._provider = provider
        self._seen: tuple[int, datetime] | None = None
        self._served_at: deque[datetime] = deque(maxlen=RECOVERED_REQUESTS)
        self._look_now = asyncio.Event()
        self.refusal: KeyRefusal | None = None
        self._refused = refused

    async def set_key(self, plain: SecretText, is_forced: bool, actor: Actor = SYSTEM) -> int:
        """Store the key once the provider has accepted it; return its version.

        With `is_forced` the provider is not asked. Raises KeyRefused, KeyNotTried, and what
        `PostgresProviderKeys.set_key` raises.
        """
        require_usable(plain)
        provider = self._provider
        if not is_forced:
            await try_key(provider, plain, may_be_forced=True)
        version = await self._keys.set_key(provider.id, SYSTEM_OWNER, plain, actor=actor)
        if not is_forced:
            # The same key, set again: the provider accepts it now.
            self._seen = None
            await self._keys.clear_refusal(provider.id, SYSTEM_OWNER, version, 0.0)
        self._look_now.set()
        return version

    def note_request(self, status: int, began_at: datetime) -> None:
        """Take in that the provider served a request, or refused it because of our key.

        Never waits.
        """
        if status == SERVED:
            self._served_at.append(began_at)
            return
        self._seen = (status, began_at)
        if self.refusal is None:
            self._look_now.set()

    async def run(self) -> None:
        """Check the key in use until cancelled."""
        async with aiohttp.ClientSession() as session:

            async def check() -> None:
                await self.check(session)

            await periodic(
                "provider_key_check",
                check,
                CHECK_EVERY_S,
                RETRY_FIRST_S,
                (ProviderUnavailable, StoreUnavailable, SealBroken),
                most_retry_s=RETRY_MOST_S,
                sleep=self._pause,
            )

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when there is a new key or the first refusal of one."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._look_now.wait(), seconds)
        self._look_now.clear()

    async def check(self, session: aiohttp.ClientSession) -> None:
        """Ask the provider about the key in use, and store a refusal or its end.

        Raises ProviderUnavailable when it cannot be asked, after storing what requests met.
        """
        provider = self._provider
        key = await self._keys.find_key(provider.id, SYSTEM_OWNER)
        if key is None:
            self._note(None)
            return
        stored = (provider.id, SYSTEM_OWNER, key.key_version)
        seen, self._seen = self._seen, None
        is_seen = seen is not None and seen[1] > key.updated_at + FORMER_KEY_FOR
        if seen is not None and is_seen:
            refusal = KeyRefusal(seen[0], "requests were refused")
            await self._keys.note_refusal(*stored, refusal)
            self._note(refusal)
        refused = await provider.dialect.check_key(session, provider.base_url, key.plain)
        if refused is not None:
            await self._keys.note_refusal(*stored, refused)
            self._note(refused)
        elif not is_seen:
            stands_s = RECOVERED_AFTER_S if self._has_served_since(key) else REFUSAL_STANDS_S
            has_ended = await self._keys.clear_refusal(*stored, stands_s)
            self._note(None if has_ended else key.refusal)

    def _has_served_since(self, key: StoredKey) -> bool:
        """Return whether the provider serves requests again after its refusal of a key."""
        served_at = self._served_at
        return (
            key.refused_at is not None
            and len(served_at) == RECOVERED_REQUESTS
            and min(served_at) > key.refused_at
        )

    def _note(self, refusal: KeyRefusal | None) -> None:
        if refusal is not None and refusal != self.refusal:
            _log.error(
                "provider_key_refused",
                provider=self._provider.id,
                status=refusal.status,
                reason=refusal.reason,
            )
        elif refusal is None and self.refusal is not None:
            _log.info("provider_key_accepted", provider=self._provider.id)
        self.refusal = refusal
        self._refused.labels(self._provider.id).set(refusal is not None)


class ProviderKeyServices:
    """The key services of all providers; those of enabled ones watch their keys."""

    def __init__(
        self,
        keys: PostgresProviderKeys,
        providers: ProviderRegistry,
        registry: CollectorRegistry,
    ) -> None:
        self._keys = keys
        self._providers = providers
        self._refused = refused_gauge(registry)
        self._watching: dict[str, ProviderKeyService] = {}

    async def run(self) -> None:
        """Check the keys of all enabled providers until cancelled."""
        await for_each_provider(self._providers, "provider key", self._watch)

    async def _watch(self, provider: Provider) -> None:
        service = self._watching[provider.id] = ProviderKeyService(
            self._keys, provider, self._refused
        )
        try:
            await service.run()
        finally:
            if self._watching.get(provider.id) is service:
                del self._watching[provider.id]
                with contextlib.suppress(KeyError):
                    self._refused.remove(provider.id)

    def get(self, provider_id: str) -> ProviderKeyService:
        """Return the service of a provider. Raises NotFound."""
        provider = self._providers.get(provider_id)
        service = self._watching.get(provider_id)
        return (
            ProviderKeyService(self._keys, provider, self._refused) if service is None else service
        )

    def note_request(self, provider_id: str, status: int, began_at: datetime) -> None:
        """Take in that a provider served a request, or refused it because of our key.

        Never waits.
        """
        if (service := self._watching.get(provider_id)) is not None:
            service.note_request(status, began_at)

    def problem(self) -> str | None:
        """Return which providers refuse our keys, and what to do; None where none does."""
        advice = [
            service.refusal.advice(provider_id)
            for provider_id, service in sorted(self._watching.items())
            if service.refusal is not None
        ]
        return "; ".join(advice) or None
