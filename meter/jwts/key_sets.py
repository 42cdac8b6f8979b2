"""The key sets of issuers: fetched, held, and used no longer than their terms say.

A set is fetched again when it is REFRESH_AFTER_S old, or when a JWT names a key that is not in it;
either way at most once in FETCH_INTERVAL_S for each issuer, whatever is asked. The store keeps the
last set of each issuer, so that processes share them and a restart forgets none.
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
from meter.jwts.fetching import DocumentSource
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
    """What a key set belongs to: a set fetched for other terms is not used under these."""

    url: str
    jwks_url: str | None
    family: Family

    def to_json(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_url": self.jwks_url, "algorithms": self.family.value}


@dataclass(slots=True)
class _Held:
    """What is known of one issuer's keys."""

    issuer_id: str
    source: _Source
    keys: KeySet | None = None
    fetched_at: datetime | None = None
    tried_at_s: float = -math.inf
    failure: str = "its keys were never fetched"
    fetch: "asyncio.Task[None] | None" = field(default=None, repr=False)


class KeySets:
    """The key sets of all issuers, as many as there are issuers and no more."""

    def __init__(self, store: IssuerStore, documents: DocumentSource, clock: Clock) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock
        self._held: dict[str, _Held] = {}

    def adopt(self, stored: Iterable[StoredIssuer]) -> None:
        """Take over the issuers of the store, and every stored set that is younger than ours."""
        held_before, self._held = self._held, {}
        for one in stored:
            source = _source_of(one.issuer)
            held = held_before.pop(one.issuer.id, None)
            if held is None or held.source != source:
                _abandon(held)
                held = _Held(one.issuer.id, source)
            self._held[one.issuer.id] = held
            self._adopt_keys(held, one)
        for gone in held_before.values():
            _abandon(gone)

    def current(self, issuer: Issuer) -> KeySet | None:
        """The set of an issuer if it may still be used; where a fetch is due, it begins."""
        held = self._held.get(issuer.id)
        if held is None or held.keys is None:
            return None
        age_s = self._age_s(held)
        if age_s > REFRESH_AFTER_S:
            self._begin_fetch(held)
        return held.keys if age_s <= issuer.terms.max_key_age_s else None

    async def find_key(self, issuer: Issuer, kid: str | None) -> VerifyingKey:
        """The issuer's key of that id, fetched if need be.

        Raises JwtRefused where it has none, IssuerUnavailable where no set is usable and no
        new one is to be had.
        """
        key = self._known_key(issuer, kid)
        held = self._held.get(issuer.id)
        if key is not None:
            return key
        if held is not None and self._begin_fetch(held) is not None:
            key = await self._wait_for_key(issuer, held, kid)
        if key is not None:
            return key
        if self.current(issuer) is not None:
            raise JwtRefused("its issuer has no such key")
        raise IssuerUnavailable("unknown issuer" if held is None else held.failure)

    async def close(self) -> None:
        """End fetches that are under way."""
        fetches = [held.fetch for held in self._held.values() if held.fetch is not None]
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    def _known_key(self, issuer: Issuer, kid: str | None) -> VerifyingKey | None:
        keys = self.current(issuer)
        return None if keys is None else keys.find(kid)

    async def _wait_for_key(
        self, issuer: Issuer, held: _Held, kid: str | None
    ) -> VerifyingKey | None:
        """Wait without taking the fetch from the others who wait for it."""
        if held.fetch is not None:
            await asyncio.wait({held.fetch}, timeout=FETCH_WAIT_S)
        return self._known_key(issuer, kid)

    def _adopt_keys(self, held: _Held, stored: StoredIssuer) -> None:
        fetched_at = stored.keys_fetched_at
        if stored.keys is None or fetched_at is None:
            return
        if held.fetched_at is not None and fetched_at <= held.fetched_at:
            return
        if (fetched_at - self._clock.now()).total_seconds() > LEEWAY_S:
            # By a clock far ahead of ours: it would stay the youngest, whatever we fetch.
            return
        if any(stored.keys.get(name) != value for name, value in held.source.to_json().items()):
            return
        held.keys = read_keys(stored.keys.get("keys"), held.source.family)
        held.fetched_at = fetched_at
        held.tried_at_s = max(held.tried_at_s, self._clock.monotonic_s() - self._age_s(held))

    def _age_s(self, held: _Held) -> float:
        """Never less than nothing: another machine's clock may be ahead of ours."""
        if held.fetched_at is None:
            return math.inf
        return max(0.0, (self._clock.now() - held.fetched_at).total_seconds())

    def _begin_fetch(self, held: _Held) -> "asyncio.Task[None] | None":
        """The fetch that is under way, or a new one if it is allowed yet."""
        now_s = self._clock.monotonic_s()
        if held.fetch is None and now_s - held.tried_at_s >= FETCH_INTERVAL_S:
            held.tried_at_s = now_s
            held.fetch = asyncio.ensure_future(self._fetch(held))
        return held.fetch

    async def _fetch(self, held: _Held) -> None:
        """Fetch the set and keep it; a failure leaves the old one as it is."""
        fetched_at = self._clock.now()
        try:
            held.keys = await self._fetch_keys(held.source)
            held.fetched_at = fetched_at
            kept = {**held.source.to_json(), "keys": held.keys.to_json()}
            await self._store.save_keys(held.issuer_id, kept, fetched_at)
        except IssuerUnavailable as error:
            held.failure = str(error)
            _log.warning("issuer_keys_failed", issuer_id=held.issuer_id, reason=str(error))
        except StoreUnavailable:
            # The set is good without being kept; the next fetch is kept again.
            _log.warning("issuer_keys_not_kept", issuer_id=held.issuer_id)
        finally:
            held.fetch = None

    async def _fetch_keys(self, source: _Source) -> KeySet:
        jwks_url = source.jwks_url or await find_keys_url(source.url, self._documents)
        return (await fetch_keys(jwks_url, source.family, self._documents)).usable


def _source_of(issuer: Issuer) -> _Source:
    return _Source(issuer.url, issuer.terms.jwks_url, issuer.terms.algorithms)


def _abandon(held: _Held | None) -> None:
    if held is not None and held.fetch is not None:
        held.fetch.cancel()
