"""Public keys that check signatures, read from JWKs. Pure.

A key is bound to its algorithms before any JWT is read. The header of a JWT can only choose one of
them, never add one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from meter.jwts.reading import MAX_KID_CHARS
from meter.jwts.terms import FAMILY_ALGORITHMS, Family

MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2_048
# The cost of a check grows with the square of the length; an issuer must not make it high.
MAX_RSA_BITS: Final = 8_192
MAX_RSA_EXPONENT: Final = 2**32 - 1
_PUBLIC_MEMBERS: Final = frozenset(
    {"kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y"}
)
_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Final = MappingProxyType(
    {
        ("EC", "P-256"): "ES256",
        ("EC", "P-384"): "ES384",
        ("EC", "P-521"): "ES512",
        ("OKP", "Ed25519"): "EdDSA",
    }
)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key for each of its algorithms. Two are equal when their JWKs are."""

    jwk: Mapping[str, Any]
    by_algorithm: Mapping[str, PyJWK] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer."""

    keys: tuple[VerifyingKey, ...]

    def find(self, kid: str | None) -> VerifyingKey | None:
        """Return the key with this id; without an id, the only key. None if there is none."""
        if kid is None:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.jwk.get("kid") == kid), None)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the JWKs of the keys, with public members only."""
        return [dict(key.jwk) for key in self.keys]


def read_keys(jwks: object, family: Family) -> KeySet:
    """Return the keys that can check signatures of the family; skip the others.

    Of two keys with one id, the first counts. At most MAX_KEYS are read.
    """
    candidates = jwks[:MAX_KEYS] if isinstance(jwks, list) else []
    keys: dict[str | None, VerifyingKey] = {}
    for jwk in candidates:
        key = read_key(jwk, FAMILY_ALGORITHMS[family])
        if key is not None:
            keys.setdefault(key.jwk.get("kid"), key)
    return KeySet(tuple(keys.values()))


def read_key(jwk: object, allowed: Iterable[str]) -> VerifyingKey | None:
    """Return a key for those of the allowed algorithms that it can be used with; None if for none.

    A JWK with a secret member is skipped: it was published, so anybody could sign with it.
    """
    if not isinstance(jwk, dict) or not _is_for_checking(jwk):
        return None
    algorithms = _algorithms_of(jwk) & frozenset(allowed)
    members = {name: jwk[name] for name in jwk.keys() & _PUBLIC_MEMBERS}
    try:
        by_algorithm = {name: PyJWK(members, name) for name in algorithms}
    except (PyJWTError, ValueError, TypeError):
        return None
    if not by_algorithm or not all(_is_sound(key) for key in by_algorithm.values()):
        return None
    return VerifyingKey(members, by_algorithm)


def _is_for_checking(jwk: Mapping[str, Any]) -> bool:
    if _SECRET_MEMBERS & jwk.keys() or jwk.get("use", "sig") != "sig":
        return False
    operations = jwk.get("key_ops", ["verify"])
    kid = jwk.get("kid", "")
    return (
        isinstance(operations, list)
        and "verify" in operations
        and isinstance(kid, str)
        and len(kid) <= MAX_KID_CHARS
    )


def _algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    """Return the algorithms that fit the kind of key; only `alg` where the JWK names one."""
    kind = jwk.get("kty")
    if kind == "RSA":
        possible = FAMILY_ALGORITHMS[Family.RS] | FAMILY_ALGORITHMS[Family.PS]
    else:
        curve = _CURVES.get((str(kind), str(jwk.get("crv"))))
        possible = frozenset() if curve is None else frozenset({curve})
    return possible & {str(jwk["alg"])} if "alg" in jwk else possible


def _is_sound(key: PyJWK) -> bool:
    if not isinstance(key.key, RSAPublicKey):
        return True
    exponent = key.key.public_numbers().e
    return MIN_RSA_BITS <= key.key.key_size <= MAX_RSA_BITS and exponent <= MAX_RSA_EXPONENT
