"""Looks at an issuer now, as the verifier does, and says step by step what it finds."""

from dataclasses import dataclass

from meter.errors import IssuerUnavailable
from meter.jwts.fetching import DocumentSource
from meter.jwts.issuers import Issuer
from meter.jwts.key_sets import DISCOVERY_PATH
from meter.jwts.keys import read_keys


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step came to, in a sentence."""

    step: str
    is_good: bool
    said: str


async def check_issuer(issuer: Issuer, documents: DocumentSource) -> list[Finding]:
    """Fetch the discovery document and the keys; nothing is kept. Never raises for the issuer."""
    findings: list[Finding] = []
    jwks_url = issuer.terms.jwks_url
    try:
        if jwks_url is None:
            jwks_url = await _discover(issuer, documents)
            findings.append(Finding("discovery", True, f"the keys are said to be at {jwks_url!a}"))
    except IssuerUnavailable as error:
        return [*findings, Finding("discovery", False, str(error))]
    try:
        said = await _look_at_keys(issuer, jwks_url, documents)
    except IssuerUnavailable as error:
        return [*findings, Finding("keys", False, str(error))]
    return [*findings, Finding("keys", True, said)]


async def _discover(issuer: Issuer, documents: DocumentSource) -> str:
    where = issuer.url.rstrip("/") + DISCOVERY_PATH
    document = await documents.fetch_object(where)
    named = document.get("issuer")
    if named != issuer.url:
        raise IssuerUnavailable(
            f"{where!a} says that its issuer is {str(named)[:200]!a}, which is not {issuer.url!a}: "
            "both must be the same, character by character"
        )
    jwks_url = document.get("jwks_uri")
    if not isinstance(jwks_url, str):
        raise IssuerUnavailable(f"{where!a} does not say where the keys are")
    return jwks_url


async def _look_at_keys(issuer: Issuer, jwks_url: str, documents: DocumentSource) -> str:
    published = (await documents.fetch_object(jwks_url)).get("keys")
    family = issuer.terms.algorithms
    usable = read_keys(published, family).keys
    total = len(published) if isinstance(published, list) else 0
    if not usable:
        raise IssuerUnavailable(
            f"{jwks_url!a} has {total} keys, and none of them can check {family.value} signatures"
        )
    return f"{len(usable)} of {total} keys can check {family.value} signatures"
