"""Verifies JWTs of other issuers: finds the issuer and its key, and reads the claims."""

from collections.abc import Mapping

from meter.clock import Clock
from meter.errors import JwtRefused
from meter.jwts import claims as claim
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.fresh import Fresh
from meter.jwts.issuers import Issuer, IssuerStore
from meter.jwts.key_sets import KeySets
from meter.jwts.keys import VerifyingKey
from meter.jwts.reading import JwtHeader, UnverifiedJwt
from meter.jwts.signature import check_signature
from meter.jwts.terms import AUDIENCE_CLAIM, FAMILY_ALGORITHMS, IssuerTerms
from meter.jwts.verified import VerifiedIdentity
from meter.jwts.verified_cache import CachedJwt, sign_off

_Issuers = Mapping[str, Issuer]


class ForeignJwts:
    """Verifies JWTs of trusted issuers; the list of issuers is at most 0.9 s old."""

    def __init__(self, store: IssuerStore, documents: IssuerDocuments, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._keys = KeySets(store, documents, clock)
        self._before: dict[str, Issuer] = {}
        self._issuers: Fresh[_Issuers] = Fresh(self._load, clock)

    async def judge(self, unverified: UnverifiedJwt) -> CachedJwt:
        """Verify a JWT. Raises JwtRefused, StoreUnavailable, IssuerUnavailable.

        The cheap checks come before a key is fetched and the signature is checked.
        """
        issuer = await self._find_issuer(unverified)
        _check_header(unverified.header, issuer.terms)
        claim.check_times(unverified.claims, self._clock.now())
        kid = unverified.header.kid
        key = await self._keys.find_key(issuer, kid)
        judged = await self._judge_by(unverified, issuer, key)
        if judged.verification.verified is None:
            changed = await self._keys.find_changed_key(issuer, kid, key)
            if changed is not None:
                judged = await self._judge_by(unverified, issuer, changed)
        return judged

    async def still_stands(self, cached: CachedJwt) -> bool:
        """Return whether the issuer is enabled on the same terms, and still has the key.

        A bad signature is judged again when the issuer may be asked whether it changed the key.
        """
        issuer = cached.issuer
        if issuer is None or not await self._is_current(issuer):
            return False
        if cached.verification.verified is None and self._keys.is_fetch_due(issuer):
            return False
        keys = self._keys.current(issuer)
        return keys is not None and keys.find(cached.kid) == cached.key

    async def close(self) -> None:
        """Cancel loads and fetches that are under way."""
        await self._issuers.close()
        await self._keys.close()

    async def _find_issuer(self, unverified: UnverifiedJwt) -> Issuer:
        url = unverified.claims.get("iss")
        issuer = (await self._issuers.get()).get(url) if isinstance(url, str) else None
        if issuer is None:
            raise JwtRefused("its issuer is not one that is known")
        if not issuer.is_enabled:
            raise JwtRefused("its issuer is disabled")
        return issuer

    async def _is_current(self, issuer: Issuer) -> bool:
        return issuer.is_enabled and (await self._issuers.get()).get(issuer.url) is issuer

    async def _judge_by(
        self, unverified: UnverifiedJwt, issuer: Issuer, key: VerifyingKey
    ) -> CachedJwt:
        # Fetching the key may have taken seconds: the issuer must be trusted now.
        if not await self._is_current(issuer):
            raise JwtRefused("its issuer was disabled or changed while its key was fetched")
        kid = unverified.header.kid
        return sign_off(lambda: self._identify(unverified, issuer, key), kid, key, issuer)

    def _identify(
        self, unverified: UnverifiedJwt, issuer: Issuer, key: VerifyingKey
    ) -> VerifiedIdentity:
        """Check the signature and return the identity of the claims. Raises JwtRefused."""
        terms = issuer.terms
        audiences = terms.audiences if terms.audience_claim == AUDIENCE_CLAIM else None
        claims = check_signature(unverified, key, issuer.url, audiences)
        ends_at = claim.check_times(claims, self._clock.now())
        claim.check_audience(claims, terms)
        claim.check_kind(claims, terms.may_be_id_token)
        claim.check_required(claims, terms)
        plan_id = claim.read_plan(claims, terms)
        return VerifiedIdentity(
            issuer_id=issuer.id,
            subject=claim.read_subject(claims, "sub"),
            account_subject=claim.read_subject(claims, terms.account_claim),
            scopes=claim.read_scopes(claims, terms),
            plan_id=plan_id,
            may_create=terms.may_create_accounts,
            name=claim.read_name(claims),
            ends_at=ends_at,
            issued_at=claim.read_time(claims, "iat"),
            first_plan_id=plan_id or terms.default_plan,
            email=claim.read_email(claims),
        )

    async def _load(self) -> _Issuers:
        """Load the issuers. An unchanged issuer stays the same object, so `is` can compare."""
        stored = await self._store.load_issuers()
        self._keys.adopt(stored)
        before = self._before
        after = {one.issuer.url: one.issuer for one in stored}
        self._before = {
            url: before[url] if before.get(url) == issuer else issuer
            for url, issuer in after.items()
        }
        return self._before


def _check_header(header: JwtHeader, terms: IssuerTerms) -> None:
    if header.alg not in FAMILY_ALGORITHMS[terms.algorithms]:
        raise JwtRefused(f"its issuer signs with {terms.algorithms}, not {header.alg}")
    if header.typ is None and terms.may_omit_type:
        return
    if header.typ not in terms.types:
        raise JwtRefused("its typ is not one that its issuer's access tokens have")
