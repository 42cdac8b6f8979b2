"""Checks signature, issuer and audience: the only call of `jwt.decode`. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import jwt

from meter.errors import JwtRefused
from meter.jwts.keys import VerifyingKey
from meter.jwts.reading import UnverifiedJwt

# `meter.jwts.claims` checks the times, by the injected clock and as whole numbers only.
_OPTIONS: Final = {
    "require": ["iss", "aud", "sub", "exp", "iat"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "enforce_minimum_key_length": True,
}


# For issuers whose access tokens have no `aud`: another claim is checked in its place.
_OPTIONS_WITHOUT_AUD: Final = {
    **_OPTIONS,
    "require": ["iss", "sub", "exp", "iat"],
    "verify_aud": False,
}


class BadSignature(JwtRefused):
    """The key did not make this signature. The result never changes for this JWT and key."""


def check_signature(
    unverified: UnverifiedJwt, key: VerifyingKey, issuer: str, audiences: frozenset[str] | None
) -> Mapping[str, Any]:
    """Return the verified claims. Raises JwtRefused.

    The key decides which algorithms are allowed; the header only chooses one of them. `audiences`
    None leaves the audience to the caller, which checks another claim.
    """
    bound = key.by_algorithm.get(unverified.header.alg)
    if bound is None:
        raise BadSignature(f"its key is not one for {unverified.header.alg}")
    try:
        return jwt.decode(
            unverified.text,
            key=bound,
            algorithms=[bound.algorithm_name],
            issuer=issuer,
            audience=audiences,
            options=_OPTIONS_WITHOUT_AUD if audiences is None else _OPTIONS,  # type: ignore[arg-type]  # Its own type is not exported.
        )
    except jwt.InvalidSignatureError:
        raise BadSignature("its signature is not the issuer's") from None
    except jwt.PyJWTError as error:
        raise JwtRefused(f"PyJWT refuses it: {error}") from None
