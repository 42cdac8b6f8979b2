"""Checks an issuer as the verifier does, and reports each step to administrators."""

from dataclasses import dataclass

from meter.errors import IssuerUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.issuers import Issuer
from meter.jwts.published import fetch_keys, find_keys_url


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one step, in a sentence."""

    step: str
    is_good: bool
    said: str


async def check_issuer(issuer: Issuer, documents: IssuerDocuments) -> list[Finding]:
    """Fetch the discovery document and the keys of an issuer, and report each step.

    Stores nothing. A failure of the issuer is a finding, not an exception.
    """
    findings: list[Finding] = []
    jwks_url = issuer.terms.jwks_url
    try:
        if jwks_url is None:
            jwks_url = await find_keys_url(issuer.url, documents)
            findings.append(Finding("discovery", True, f"the keys are at {jwks_url!a}"))
    except IssuerUnavailable as error:
        return [*findings, Finding("discovery", False, str(error))]
    try:
        found = await fetch_keys(jwks_url, issuer.terms.algorithms, documents)
    except IssuerUnavailable as error:
        return [*findings, Finding("keys", False, str(error))]
    usable, family = len(found.usable.keys), issuer.terms.algorithms.value
    said = f"{usable} of {found.total} keys can check {family} signatures"
    return [*findings, Finding("keys", True, said)]
