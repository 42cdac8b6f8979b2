"""Issuers, keys and JWTs for tests: good ones, and bad ones made by hand."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from meter.clock import ManualClock
from meter.errors import IssuerUnavailable, StoreUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.issuers import Issuer, IssuerTerms, StoredIssuer
from meter.jwts.passes import OwnIssuer
from meter.jwts.terms import Family
from meter.jwts.verifying import JwtVerifier
from meter.scopes import Scope

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
ISSUER = "https://id.example.com/realms/main"
AUDIENCE = "tollkeeper"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def b64(octets: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def as_bytes(part: Mapping[str, Any] | bytes) -> bytes:
    """A header or payload as it goes over the wire."""
    return part if isinstance(part, bytes) else json.dumps(part).encode()


@dataclass(frozen=True)
class Signer:
    """A key of an issuer, with the one algorithm that its JWK names."""

    kid: str
    alg: str
    private: PrivateKey

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, as published."""
        algorithm = jwt.get_algorithm_by_name(self.alg)
        members = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        members.pop("key_ops", None)
        return {**members, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def sign(
        self,
        payload: Mapping[str, Any] | bytes,
        header: Mapping[str, Any] | bytes | None = None,
        alg: str | None = None,
    ) -> str:
        """A JWT with this payload, signed by `alg` whatever the header says."""
        ordinary = {"alg": self.alg, "kid": self.kid, "typ": "JWT"}
        first = b64(as_bytes(ordinary if header is None else header))
        signed = f"{first}.{b64(as_bytes(payload))}"
        algorithm = jwt.get_algorithm_by_name(alg or self.alg)
        return f"{signed}.{b64(algorithm.sign(signed.encode(), self.private))}"


@cache
def rsa_key(_number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """RSA keys take long to make: the same number gives the same key."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


def signer(alg: str = "ES256", kid: str = "key-1", number: int = 0) -> Signer:
    """A key for an algorithm."""
    if alg in CURVES:
        return Signer(kid, alg, ec.generate_private_key(CURVES[alg]))
    if alg == "EdDSA":
        return Signer(kid, alg, ed25519.Ed25519PrivateKey.generate())
    return Signer(kid, alg, rsa_key(number))


def claims(**members: Any) -> dict[str, Any]:
    """Return the claims of a good access token; None takes a claim away."""
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": NOW_S - 10,
        "exp": NOW_S + 300,
        **members,
    }
    return {name: value for name, value in usual.items() if value is not None}


def terms(family: Family = Family.ES, **members: Any) -> IssuerTerms:
    """Terms that let inference happen."""
    usual = {"audiences": frozenset({AUDIENCE}), "default_scopes": frozenset({Scope.INFERENCE})}
    return IssuerTerms(**{**usual, "algorithms": family, **members})


def issuer(
    family: Family = Family.ES,
    issuer_id: str = "main",
    url: str = ISSUER,
    is_enabled: bool = True,
    **members: Any,
) -> Issuer:
    """An issuer that is trusted."""
    return Issuer(issuer_id, url, terms(family, **members), is_enabled)


def stored(one: Issuer, keys: Sequence[Mapping[str, Any]], fetched_at: datetime) -> StoredIssuer:
    """An issuer with a set that was fetched before."""
    kept = {
        "issuer": one.url,
        "jwks_url": one.terms.jwks_url,
        "algorithms": one.terms.algorithms.value,
        "keys": list(keys),
    }
    return StoredIssuer(one, kept, fetched_at)


class FakeIssuers:
    """Implements `IssuerStore` in memory."""

    def __init__(self, *issuers: StoredIssuer) -> None:
        self.issuers = {one.issuer.id: one for one in issuers}
        self.is_away = False
        self.loads = 0

    def change(self, changed: Issuer) -> None:
        """As an administrator would."""
        before = self.issuers[changed.id]
        self.issuers[changed.id] = StoredIssuer(changed, before.keys, before.keys_fetched_at)

    async def load_issuers(self) -> list[StoredIssuer]:
        """All of them."""
        self.loads += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return list(self.issuers.values())

    async def save_keys(
        self, issuer_id: str, keys: Mapping[str, Any], fetched_at: datetime
    ) -> None:
        """Keep a set as Postgres does: as JSON, and only where no newer one is kept."""
        if self.is_away:
            raise StoreUnavailable("away")
        before = self.issuers.get(issuer_id)
        if before is None or (before.keys_fetched_at or fetched_at) > fetched_at:
            return
        kept = json.loads(json.dumps(keys))
        self.issuers[issuer_id] = StoredIssuer(before.issuer, kept, fetched_at)


class FakeDocuments(IssuerDocuments):
    """Documents in memory; an address without one does not answer."""

    def __init__(self, documents: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.documents = dict(documents or {})
        self.asked: list[str] = []

    def publish(self, url: str, *signers: Signer) -> None:
        """Discovery and keys of an issuer."""
        jwks_url = f"{url}/keys"
        self.documents[f"{url}/.well-known/openid-configuration"] = {
            "issuer": url,
            "jwks_uri": jwks_url,
        }
        self.documents[jwks_url] = {"keys": [one.jwk for one in signers]}

    async def fetch_object(self, url: str) -> Mapping[str, Any]:
        """The documents that were published."""
        self.asked.append(url)
        if url not in self.documents:
            raise IssuerUnavailable(f"{url!a}: it cannot be connected to")
        return self.documents[url]


class FakePassKeys:
    """Implements `PassKeys` in memory."""

    def __init__(self, *jwks: Mapping[str, Any]) -> None:
        self.jwks = {jwk["kid"]: jwk for jwk in jwks}
        self.loads = 0

    async def load_public_keys(self) -> Mapping[str, Mapping[str, Any]]:
        """The documents that are published now."""
        self.loads += 1
        return dict(self.jwks)


class VerifierSetup:
    """A verifier with one issuer whose keys were fetched a moment ago, and no network."""

    def __init__(self, *signers: Signer, family: Family = Family.ES, **members: Any) -> None:
        self.clock = ManualClock(NOW)
        jwks = [one.jwk for one in signers]
        self.store = FakeIssuers(stored(issuer(family, **members), jwks, NOW))
        self.own = OwnIssuer("https://tollkeeper.example.com", "tollkeeper-api")
        self.own_keys = FakePassKeys()
        self.documents = FakeDocuments()
        self.verifier = JwtVerifier(self.store, self.documents, self.clock, self.own, self.own_keys)

    async def refusal(self, text: str) -> str:
        """Return why it is refused; fails the test if it is not, or if anybody else was asked."""
        verification = await self.verifier.verify_with_reason(text)
        assert verification.verified is None, "it was accepted"
        assert await self.verifier.verify(text) is None
        assert self.documents.asked == []
        return verification.reason
