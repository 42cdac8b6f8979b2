"""Discovery for those who verify passes: the public keys, and their address.

Passes come from one route, for a key, and there are no ID tokens; the document promises no more.
"""

from typing import Any, Final

from fastapi import APIRouter, Response

from meter.api.services import FromOwnIssuer, FromPublishedKeys, FromSigningKeys
from meter.jwts.published import DISCOVERY_PATH
from meter.scopes import Scope

# Less than a new signing key is published ahead.
MAX_AGE_S: Final = 60
JWKS_PATH: Final = "/.well-known/jwks.json"
TOKEN_PATH: Final = "/api/v1/auth/token"

router = APIRouter(tags=["Passes"])


@router.get(JWKS_PATH, summary="Get the public keys of passes")
async def get_keys(published_keys: FromPublishedKeys, response: Response) -> dict[str, Any]:
    """Return the public keys of all passes that have not expired (RFC 7517)."""
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_S}"
    keys = await published_keys.list_keys()
    return {"keys": [dict(key.public_jwk) for key in keys]}


@router.get(DISCOVERY_PATH, summary="Get the discovery document")
async def get_discovery(
    own_issuer: FromOwnIssuer, signing_keys: FromSigningKeys, response: Response
) -> dict[str, Any]:
    """Return the issuer of passes and the addresses of its routes (RFC 8414)."""
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_S}"
    issuer = own_issuer.url
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "jwks_uri": base + JWKS_PATH,
        "token_endpoint": base + TOKEN_PATH,
        # The route takes a key as bearer and JSON, which is no grant type of OAuth.
        "grant_types_supported": [],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "scopes_supported": [scope.value for scope in Scope],
        "claims_supported": ["aud", "client_id", "exp", "iat", "iss", "jti", "nbf", "scope", "sub"],
        "access_token_signing_alg_values_supported": [signing_keys.algorithm],
    }
