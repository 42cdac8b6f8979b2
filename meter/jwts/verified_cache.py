"""A cache of checked JWTs, by digest, bounded in number and in time."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cachetools import TLRUCache

from meter.clock import Clock
from meter.jwts.issuers import Issuer
from meter.jwts.keys import VerifyingKey
from meter.jwts.signature import BadSignature
from meter.jwts.verified import JwtVerification, Verified

MAX_CACHED: Final = 100_000
MAX_CACHED_S: Final = 600
MAX_REFUSED: Final = 10_000


@dataclass(frozen=True, slots=True)
class CachedJwt:
    """The result of checking a JWT; it holds as long as issuer and key do not change.

    `issuer` None means that the JWT is a pass. `ends_at` None means that the result never expires.
    """

    verification: JwtVerification
    issuer: Issuer | None
    kid: str | None
    key: VerifyingKey
    ends_at: datetime | None


def sign_off(
    identify: Callable[[], Verified], kid: str | None, key: VerifyingKey, issuer: Issuer | None
) -> CachedJwt:
    """Run the check of a signature and return a result to cache: good, or a bad signature.

    Raises JwtRefused for a refusal that may change later, which is not cached.
    """
    try:
        verified = identify()
    except BadSignature as refusal:
        return CachedJwt(JwtVerification(None, str(refusal)), issuer, kid, key, None)
    return CachedJwt(JwtVerification(verified, "it is good"), issuer, kid, key, verified.ends_at)


_Cache = TLRUCache[bytes, CachedJwt]


def digest_of(text: str) -> bytes:
    """Return the digest of a JWT. The cache holds digests, so that its content cannot be used."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class VerifiedCache:
    """Caches good JWTs and, separately, JWTs with a bad signature, which must not displace them."""

    def __init__(self, clock: Clock, max_cached: int = MAX_CACHED) -> None:
        self._clock = clock
        self._good = _cache(max_cached, clock)
        self._bad = _cache(min(MAX_REFUSED, max_cached), clock)

    def find(self, digest: bytes) -> CachedJwt | None:
        """Return the result for a JWT; None if it is not cached or has expired."""
        found = self._good.get(digest) or self._bad.get(digest)
        if found is None or (found.ends_at is not None and found.ends_at <= self._clock.now()):
            return None
        return found

    def keep(self, digest: bytes, cached: CachedJwt) -> None:
        """Cache a result for MAX_CACHED_S at most."""
        is_good = cached.verification.verified is not None
        (self._good if is_good else self._bad)[digest] = cached

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)


def _cache(max_cached: int, clock: Clock) -> _Cache:
    return TLRUCache(
        max_cached,
        ttu=lambda _digest, _remembered, now_s: now_s + MAX_CACHED_S,
        timer=clock.monotonic_s,
    )
