"""From a credential to the principal behind it: one way for keys and JWTs, for every caller.

authz asks with a cache between (`authz/callers/principal_cache.py`), the meter API without.
"""

from dataclasses import replace
from datetime import datetime
from typing import Protocol

from meter.identity.keys.key_text import Pepper, parse
from meter.identity.principal import Principal, Principals
from meter.jwts.reading import looks_like_jwt
from meter.jwts.verifying import Verified, VerifiedPass


class Verifier(Protocol):
    """Verifies JWTs; `meter.jwts.verifying.JwtVerifier` does."""

    async def verify(self, text: str) -> Verified | None:
        """What a JWT says, or None where it is not good."""
        ...


class Identifier:
    """Finds the principal behind a key or a JWT."""

    def __init__(self, pepper: Pepper, principals: Principals, jwts: Verifier) -> None:
        self._pepper = pepper
        self._principals = principals
        self._jwts = jwts

    async def identify(self, credential: str) -> Principal | None:
        """The principal; None for whatever is not good, without saying what is wrong with it.

        What cannot be a key of ours is refused without a look-up. Raises Outage when nobody can
        tell.
        """
        if looks_like_jwt(credential):
            verified = await self._jwts.verify(credential)
            return None if verified is None else await self._find_verified(verified)
        if parse(credential) is None:
            return None
        return await self._principals.find_by_secret(self._pepper.digest(credential))

    async def _find_verified(self, verified: Verified) -> Principal | None:
        if isinstance(verified, VerifiedPass):
            principal = await self._principals.find_by_pass(verified.pass_id)
            return None if principal is None else _until(principal, verified.ends_at)
        principal = await self._principals.find_by_identity(verified)
        if principal is None:
            return None
        return replace(_until(principal, verified.ends_at), scopes=verified.scopes)


def _until(principal: Principal, ends_at: datetime) -> Principal:
    """A JWT may end before what it stands for."""
    first = ends_at if principal.ends_at is None else min(ends_at, principal.ends_at)
    return replace(principal, ends_at=first)
