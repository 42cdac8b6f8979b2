"""Verifies passes: JWTs that Tollkeeper itself signed."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from meter.clock import Clock
from meter.errors import JwtRefused
from meter.jwts import claims as claim
from meter.jwts.fresh import Fresh
from meter.jwts.keys import VerifyingKey, read_key
from meter.jwts.reading import UnverifiedJwt
from meter.jwts.signature import check_signature
from meter.jwts.signing import PASS_TYPE
from meter.jwts.verified import VerifiedPass
from meter.jwts.verified_cache import CachedJwt, sign_off

OWN_ALGORITHMS: Final = frozenset({"EdDSA", "RS256"})
UNKNOWN_KEY_INTERVAL_S: Final = 1.0
_PASS_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")

_Keys = Mapping[str, VerifyingKey]


@dataclass(frozen=True, slots=True)
class OwnIssuer:
    """Tollkeeper as an issuer: the `iss` and `aud` of passes."""

    url: str
    audience: str


class PassKeys(Protocol):
    """The store of published signing keys; `meter.identity`, a higher layer, implements it."""

    async def load_public_keys(self) -> Mapping[str, Mapping[str, Any]]:
        """Return JWKs by `kid`. Raises StoreUnavailable."""
        ...


class OwnPasses:
    """Verifies passes; the list of published keys is at most 0.9 s old."""

    def __init__(self, own: OwnIssuer, store: PassKeys, clock: Clock) -> None:
        self._own = own
        self._store = store
        self._clock = clock
        self._keys: Fresh[_Keys] = Fresh(self._load, clock)
        self._asked_s = -math.inf

    def is_ours(self, unverified: UnverifiedJwt) -> bool:
        """Return whether the JWT names Tollkeeper as its issuer."""
        return unverified.claims.get("iss") == self._own.url

    async def judge(self, unverified: UnverifiedJwt) -> CachedJwt:
        """Verify a pass. Raises JwtRefused, StoreUnavailable."""
        kid = unverified.header.kid
        if kid is None or unverified.header.typ != PASS_TYPE:
            raise JwtRefused(f"a pass has a kid, and typ {PASS_TYPE}")
        claim.check_times(unverified.claims, self._clock.now())
        key = await self._find_key(kid)
        return sign_off(lambda: self._identify(unverified, key), kid, key, None)

    async def still_stands(self, cached: CachedJwt) -> bool:
        """Return whether the key is still published. Raises StoreUnavailable."""
        kid = cached.kid
        return kid is not None and (await self._keys.get()).get(kid) == cached.key

    async def close(self) -> None:
        """Cancel a load that is under way."""
        await self._keys.close()

    async def _find_key(self, kid: str) -> VerifyingKey:
        """Return a published key. Raises JwtRefused, StoreUnavailable.

        The key may have been created a moment ago, so an unknown `kid` reloads the keys; at most
        once in UNKNOWN_KEY_INTERVAL_S, because an attacker can invent ids.
        """
        key = (await self._keys.get()).get(kid)
        now_s = self._clock.monotonic_s()
        if key is None and now_s - self._asked_s >= UNKNOWN_KEY_INTERVAL_S:
            self._asked_s = now_s
            key = (await self._keys.reload()).get(kid)
        if key is None:
            raise JwtRefused("no published key of ours has its kid")
        return key

    def _identify(self, unverified: UnverifiedJwt, key: VerifyingKey) -> VerifiedPass:
        audiences = frozenset({self._own.audience})
        claims = check_signature(unverified, key, self._own.url, audiences)
        ends_at = claim.check_times(claims, self._clock.now())
        pass_id = claims.get("jti")
        if not isinstance(pass_id, str) or _PASS_ID.fullmatch(pass_id) is None:
            raise JwtRefused("its jti is not the id of a pass")
        return VerifiedPass(pass_id, ends_at)

    async def _load(self) -> _Keys:
        jwks = await self._store.load_public_keys()
        keys = {kid: read_key(dict(jwk), OWN_ALGORITHMS) for kid, jwk in jwks.items()}
        return {kid: key for kid, key in keys.items() if key is not None}
