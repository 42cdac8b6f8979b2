"""Creates the keys that sign passes, and signs passes. Pure except for the random source."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from meter.errors import BrokenInvariant
from meter.scopes import Scope
from meter.sealing import SecretText

PASS_TYPE: Final = "at+jwt"
RSA_BITS: Final = 2_048
RSA_EXPONENT: Final = 65_537

SigningAlgorithm = Literal["EdDSA", "RS256"]
# RFC 7638: a thumbprint covers the members that make up the key, in order of their names.
_THUMBPRINT_MEMBERS: Final = {"OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


class NewSigningKey(NamedTuple):
    """A new key; `private` is in PEM, to be sealed at once."""

    kid: str
    public_jwk: dict[str, Any]
    private: SecretText


def new_signing_key(algorithm: SigningAlgorithm) -> NewSigningKey:
    """Create a key; its `kid` is its RFC 7638 thumbprint."""
    key: Ed25519PrivateKey | RSAPrivateKey
    if algorithm == "EdDSA":
        key = Ed25519PrivateKey.generate()
        members = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        key = generate_private_key(public_exponent=RSA_EXPONENT, key_size=RSA_BITS)
        members = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        del members["key_ops"]
    kid = thumbprint(members)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return NewSigningKey(
        kid, {**members, "kid": kid, "alg": algorithm, "use": "sig"}, SecretText(pem)
    )


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of an Ed25519 or RSA key (RFC 7638)."""
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def pass_claims(
    issuer: str,
    audience: str,
    account_id: str,
    credential_id: str,
    pass_id: str,
    scopes: Iterable[Scope],
    issued_at: datetime,
    expires_at: datetime,
) -> dict[str, Any]:
    """Return the claims of a pass, in the members of RFC 9068; times in whole seconds."""
    issued_s = int(issued_at.timestamp())
    return {
        "iss": issuer,
        "aud": audience,
        "sub": account_id,
        "client_id": credential_id,
        "jti": pass_id,
        "iat": issued_s,
        "nbf": issued_s,
        "exp": int(expires_at.timestamp()),
        "scope": " ".join(sorted(scopes)),
    }


def sign_pass(
    private: SecretText, kid: str, algorithm: SigningAlgorithm, claims: Mapping[str, Any]
) -> SecretText:
    """Sign a pass and return its compact JWT, which is a secret."""
    # Validating an RSA key takes 30 ms. We created this one, and it was sealed since.
    key = load_pem_private_key(
        private.reveal().encode(), password=None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise BrokenInvariant("a stored signing key is neither an Ed25519 nor an RSA key")
    headers = {"kid": kid, "typ": PASS_TYPE}
    return SecretText(jwt.encode(dict(claims), key, algorithm, headers))
