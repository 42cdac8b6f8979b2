"""Reads the documents that an issuer publishes: its discovery document and its key set.

The verifier and the administrators' check both use these functions, so that the check predicts what
the verifier does.
"""

from dataclasses import dataclass
from typing import Final

from meter.errors import IssuerUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.keys import KeySet, read_keys
from meter.jwts.terms import Family

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
MAX_SHOWN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """The keys that can be used, at least one, out of `total` that were published."""

    usable: KeySet
    total: int


async def find_keys_url(issuer_url: str, documents: IssuerDocuments) -> str:
    """Return the URL of the keys from the discovery document.

    Raises IssuerUnavailable, also where the document is of another issuer.
    """
    where = issuer_url.rstrip("/") + DISCOVERY_PATH
    document = await documents.fetch_object(where)
    named = document.get("issuer")
    if named != issuer_url:
        raise IssuerUnavailable(
            f"{where!a} says that its issuer is {str(named)[:MAX_SHOWN_CHARS]!a}, which is not "
            f"{issuer_url!a}: both must be the same, character by character"
        )
    jwks_url = document.get("jwks_uri")
    if not isinstance(jwks_url, str):
        raise IssuerUnavailable(f"{where!a} does not say where the keys are")
    return jwks_url


async def fetch_keys(jwks_url: str, family: Family, documents: IssuerDocuments) -> FetchedKeys:
    """Fetch the keys that can check signatures of the family. Raises IssuerUnavailable."""
    published = (await documents.fetch_object(jwks_url)).get("keys")
    usable = read_keys(published, family)
    total = len(published) if isinstance(published, list) else 0
    if not usable.keys:
        raise IssuerUnavailable(
            f"{jwks_url!a} has {total} keys, and none of them can check {family.value} signatures"
        )
    return FetchedKeys(usable, total)
