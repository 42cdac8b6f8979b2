"""Looks at an issuer now, as the verifier does, and says step by step what it finds."""

from dataclasses import dataclass

from meter.errors import IssuerUnavailable
from meter.jwts.fetching import DocumentSource
from meter.jwts.issuers import Issuer
from meter.jwts.published import fetch_keys, find_keys_url


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
            jwks_url = await find_keys_url(issuer.url, documents)
            findings.append(Finding("discovery", True, f"the keys are said to be at {jwks_url!a}"))
    except IssuerUnavailable as error:
        return [*findings, Finding("discovery", False, str(error))]
    try:
        said = await _look_at_keys(issuer, jwks_url, documents)
    except IssuerUnavailable as error:
        return [*findings, Finding("keys", False, str(error))]
    return [*findings, Finding("keys", True, said)]


async def _look_at_keys(issuer: Issuer, jwks_url: str, documents: DocumentSource) -> str:
    family = issuer.terms.algorithms
    found = await fetch_keys(jwks_url, family, documents)
    usable = len(found.usable.keys)
    return f"{usable} of {found.total} keys can check {family.value} signatures"
