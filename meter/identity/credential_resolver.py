"""From a credential to its principal: the same rules for keys and JWTs, whoever asks.

authz puts a cache before the store (`authz/callers/principal_cache.py`); the meter API does not.
"""

from dataclasses import replace
from typing import Protocol

from meter.identity.keys.key_text import Pepper, is_well_formed
from meter.identity.principal import ByIdentity, ByKey, ByPass, Presented, Principal, Principals
from meter.jwts.reading import looks_like_jwt
from meter.jwts.verified import Verified, VerifiedPass


class Verifier(Protocol):
    """Verifies JWTs, as `meter.jwts.verifying.JwtVerifier` does."""

    async def verify(self, text: str) -> Verified | None:
        """Return the content of a JWT, or None when the JWT is refused."""
        ...


class CredentialResolver:
    """Finds the principal of an API key or a JWT."""

    def __init__(self, pepper: Pepper, principals: Principals, jwts: Verifier) -> None:
        self._pepper = pepper
        self._principals = principals
        self._jwts = jwts

    async def identify(self, credential: str) -> Principal | None:
        """Return the principal of a credential; None for any credential that is not valid.

        Raises Outage when the answer cannot be known at the moment.
        """
        presented = await self.resolve(credential)
        return None if presented is None else await self.find(presented)

    async def resolve(self, credential: str) -> Presented | None:
        """Return the form in which a key or JWT is looked up.

        None for a JWT that is refused, and for text that cannot be a key of ours: neither causes
        a look-up. Raises Outage when the keys of the JWT's issuer cannot be had.
        """
        if looks_like_jwt(credential):
            verified = await self._jwts.verify(credential)
            if verified is None:
                return None
            return ByPass(verified) if isinstance(verified, VerifiedPass) else ByIdentity(verified)
        return ByKey(self._pepper.digest(credential)) if is_well_formed(credential) else None

    async def find(self, presented: Presented) -> Principal | None:
        """Return the principal, within the expiry and the scopes that a JWT itself states.

        None and errors are those of Principals.find.
        """
        principal = await self._principals.find(presented)
        if principal is None or not isinstance(presented, ByPass | ByIdentity):
            return principal
        # The cache keeps what the store says of the credential. One JWT may end earlier.
        ends_at = presented.verified.ends_at
        if principal.ends_at is not None:
            ends_at = min(ends_at, principal.ends_at)
        if isinstance(presented, ByIdentity):
            return replace(principal, ends_at=ends_at, scopes=presented.verified.scopes)
        return replace(principal, ends_at=ends_at)
