"""Verifies JWTs: the one place where a JWT becomes an identity."""

from meter.clock import Clock
from meter.errors import JwtRefused
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.foreign import ForeignJwts
from meter.jwts.issuers import IssuerStore
from meter.jwts.passes import OwnIssuer, OwnPasses, PassKeys
from meter.jwts.reading import MAX_JWT_CHARS, UnverifiedJwt, read_jwt
from meter.jwts.verified import JwtVerification, Verified
from meter.jwts.verified_cache import CachedJwt, VerifiedCache, digest_of


class JwtVerifier:
    """Verifies passes and the JWTs of enabled issuers.

    Without `own` and `own_keys`, passes are refused. The result is cached by the digest of the JWT,
    so that a signature is checked once. Each call checks again that the issuer is enabled on the
    same terms, and still has the key that signed the JWT.
    """

    def __init__(
        self,
        issuers: IssuerStore,
        documents: IssuerDocuments,
        clock: Clock,
        own: OwnIssuer | None = None,
        own_keys: PassKeys | None = None,
    ) -> None:
        self._foreign = ForeignJwts(issuers, documents, clock)
        self._own = OwnPasses(own, own_keys, clock) if own and own_keys else None
        self._cache = VerifiedCache(clock)

    async def verify(self, text: str) -> Verified | None:
        """Return the identity in a JWT; None for every JWT that is refused.

        Raises an Outage where the JWT cannot be judged: StoreUnavailable, or IssuerUnavailable
        where the issuer's keys are too old and it does not answer.
        """
        return (await self.verify_with_reason(text)).verified

    async def verify_with_reason(self, text: str) -> JwtVerification:
        """Verify a JWT and return the reason of a refusal, which never quotes the signature."""
        if len(text) > MAX_JWT_CHARS:
            return JwtVerification(None, f"it is longer than {MAX_JWT_CHARS} characters")
        digest = digest_of(text)
        cached = self._cache.find(digest)
        if cached is None or not await self._still_stands(cached):
            try:
                cached = await self._judge(read_jwt(text))
            except JwtRefused as refusal:
                return JwtVerification(None, str(refusal))
            self._cache.keep(digest, cached)
        return cached.verification

    async def close(self) -> None:
        """Cancel loads and fetches that are under way."""
        await self._foreign.close()
        if self._own is not None:
            await self._own.close()

    async def _judge(self, unverified: UnverifiedJwt) -> CachedJwt:
        if self._own is not None and self._own.is_ours(unverified):
            return await self._own.judge(unverified)
        return await self._foreign.judge(unverified)

    async def _still_stands(self, cached: CachedJwt) -> bool:
        if self._own is not None and cached.issuer is None:
            return await self._own.still_stands(cached)
        return await self._foreign.still_stands(cached)
