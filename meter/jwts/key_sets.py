"""The cached key sets of issuers, each used no longer than the issuer's terms allow.

A set is fetched again when it is REFRESH_AFTER_S old, when a JWT names a key that is not in it, or
when a signature is not by the key that it names, because an issuer may change a key under its name.
Each issuer is asked at most once in FETCH_INTERVAL_S, whatever JWTs arrive. The store keeps the
last set of each issuer, so that processes share the sets and a restart loses none.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog

from meter.clock import Clock
from meter.errors import IssuerUnavailable, JwtRefused, StoreUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.issuers import Issuer, IssuerStore, StoredIssuer
from meter.jwts.keys import KeySet, VerifyingKey, read_keys
from meter.jwts.published import fetch_keys, find_keys_url
from meter.jwts.terms import LEEWAY_S, Family

REFRESH_AFTER_S: Final = 600
FETCH_INTERVAL_S: Final = 30
FETCH_WAIT_S: Final = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Source:
    """The terms that a key set was fetched for; it is not used under other terms."""

    url: str
    jwks_url: str | None
    family: Family

    def to_json(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_url": self.jwks_url, "algorithms": self.family.value}


@dataclass(slots=True)
class _Held:
    """The key set of one issuer, and the state of its fetches."""

    issuer_id: str
    source: _Source
    keys: KeySet | None = None
    fetched_at: datetime | None = None
    tried_at_s: float = -math.inf
    failure: str = "its keys were never fetched"
    fetch: "asyncio.Task[None] | None" = field(default=None, repr=False)


class KeySets:
    """The key sets of all issuers: one for each."""

    def __init__(self, store: IssuerStore, documents: IssuerDocuments, clock: Clock) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock
        self._held: dict[str, _Held] = {}

    def adopt(self, stored: Iterable[StoredIssuer]) -> None:
        """Take over the issuers of the store, and each stored set that is newer than ours."""
        held_before, self._held = self._held, {}
        for one in stored:
            terms = one.issuer.terms
            source = _Source(one.issuer.url, terms.jwks_url, terms.algorithms)
            held = held_before.pop(one.issuer.id, None)
            if held is None or held.source != source:
                _abandon(held)
                held = _Held(one.issuer.id, source)
            self._held[one.issuer.id] = held
            self._adopt_keys(held, one)
        for gone in held_before.values():
            _abandon(gone)

    def current(self, issuer: Issuer) -> KeySet | None:
        """Return the set of an issuer, None if it is too old; begin a fetch if one is due."""
        held = self._held.get(issuer.id)
        if held is None or held.keys is None:
            return None
        age_s = self._age_s(held)
        if age_s > REFRESH_AFTER_S:
            self._begin_fetch(held)
        return held.keys if age_s <= issuer.terms.max_key_age_s else None

    async def find_key(self, issuer: Issuer, kid: str | None) -> VerifyingKey:
        """Return the issuer's key with this id; fetch the set if the key is not in it.

        Raises JwtRefused where the issuer has no such key, IssuerUnavailable where no set is
        usable and a new one cannot be fetched.
        """
        key = self._known_key(issuer, kid)
        if key is None and await self._fetch_if_due(issuer):
            key = self._known_key(issuer, kid)
        if key is not None:
            return key
        if self.current(issuer) is not None:
            raise JwtRefused("its issuer has no such key")
        held = self._held.get(issuer.id)
        raise IssuerUnavailable("unknown issuer" if held is None else held.failure)

    async def find_changed_key(
        self, issuer: Issuer, kid: str | None, failed: VerifyingKey
    ) -> VerifyingKey | None:
        """Return the key that the issuer has now under this id; None where it is `failed` still.

        Fetches the set where a fetch is due, so that forged JWTs cause no more fetches than others.
        """
        if not await self._fetch_if_due(issuer):
            return None
        key = self._known_key(issuer, kid)
        return None if key == failed else key

    def is_fetch_due(self, issuer: Issuer) -> bool:
        """Return whether the issuer may be asked for its keys now."""
        held = self._held.get(issuer.id)
        return held is not None and self._clock.monotonic_s() - held.tried_at_s >= FETCH_INTERVAL_S

    async def close(self) -> None:
        """Cancel fetches that are under way."""
        fetches = [held.fetch for held in self._held.values() if held.fetch is not None]
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _fetch_if_due(self, issuer: Issuer) -> bool:
        """Wait for a fetch that is under way or due; return whether there was one."""
        held = self._held.get(issuer.id)
        fetch = None if held is None else self._begin_fetch(held)
        if fetch is None:
            return False
        # A waiter that is cancelled must not cancel the fetch that others wait for.
        await asyncio.wait({fetch}, timeout=FETCH_WAIT_S)
        return True

    def _known_key(self, issuer: Issuer, kid: str | None) -> VerifyingKey | None:
        keys = self.current(issuer)
        return None if keys is None else keys.find(kid)

    def _adopt_keys(self, held: _Held, stored: StoredIssuer) -> None:
        fetched_at = stored.keys_fetched_at
        if stored.keys is None or fetched_at is None:
            return
        if held.fetched_at is not None and fetched_at <= held.fetched_at:
            return
        if (fetched_at - self._clock.now()).total_seconds() > LEEWAY_S:
            # Stored by a machine whose clock is far ahead: the set would stay the newest for ever.
            return
        if any(stored.keys.get(name) != value for name, value in held.source.to_json().items()):
            return
        held.keys = read_keys(stored.keys.get("keys"), held.source.family)
        held.fetched_at = fetched_at
        held.tried_at_s = max(held.tried_at_s, self._clock.monotonic_s() - self._age_s(held))

    def _age_s(self, held: _Held) -> float:
        """Return the age of the set, at least 0: another machine's clock may be ahead of ours."""
        if held.fetched_at is None:
            return math.inf
        return max(0.0, (self._clock.now() - held.fetched_at).total_seconds())

    def _begin_fetch(self, held: _Held) -> "asyncio.Task[None] | None":
        """Return the fetch that is under way, or a new one if the interval has passed, or None."""
        now_s = self._clock.monotonic_s()
        if held.fetch is None and now_s - held.tried_at_s >= FETCH_INTERVAL_S:
            held.tried_at_s = now_s
            held.fetch = asyncio.ensure_future(self._fetch(held))
        return held.fetch

    async def _fetch(self, held: _Held) -> None:
        """Fetch the set and store it; a failure keeps the old set."""
        fetched_at = self._clock.now()
        try:
            source = held.source
            jwks_url = source.jwks_url or await find_keys_url(source.url, self._documents)
            held.keys = (await fetch_keys(jwks_url, source.family, self._documents)).usable
            held.fetched_at = fetched_at
            kept = {**source.to_json(), "keys": held.keys.to_json()}
            await self._store.save_keys(held.issuer_id, kept, fetched_at)
        except IssuerUnavailable as error:
            held.failure = str(error)
            _log.warning("issuer_keys_failed", issuer_id=held.issuer_id, reason=str(error))
        except StoreUnavailable:
            # The set can be used without being stored; the next fetch stores its set again.
            _log.warning("issuer_keys_not_kept", issuer_id=held.issuer_id)
        finally:
            held.fetch = None


def _abandon(held: _Held | None) -> None:
    if held is not None and held.fetch is not None:
        held.fetch.cancel()
