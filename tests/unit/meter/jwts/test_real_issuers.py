"""JWTs in the forms that real issuers give them, with made-up values."""

import re
from typing import Any

import pytest

from meter.jwts.terms import IssuerTerms
from meter.jwts.verified import VerifiedIdentity
from tests.jwts import NOW_S, Signer, VerifierSetup, claims, signer

RSA = signer("RS256", kid="nOo3ZDrODXEK1jKWhXslHR_KXEg")
GUID = "11111111-2222-3333-4444-555555555555"
HEADER = {"alg": "RS256", "kid": RSA.kid}
TYPED = {**HEADER, "typ": "JWT"}
# Form: the header, the claims beside those of every JWT, and the terms it needs.
Form = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]

FORMS: dict[str, Form] = {
    "Entra, version 2": (
        {"typ": "JWT", "alg": "RS256", "kid": RSA.kid},
        {
            "aud": GUID,
            "nbf": NOW_S - 10,
            "aio": "AWQAm/8XAAAA",
            "azp": GUID,
            "azpacr": "1",
            "name": "Ada",
            "oid": GUID,
            "preferred_username": "ada@example.com",
            "rh": "0.AXoA",
            "roles": ["Models.Call"],
            "scp": "Models.Call User.Read",
            "tid": GUID,
            "uti": "4h_mQ",
            "ver": "2.0",
            "xms_ftd": "x",
        },
        {"audiences": [GUID], "account_claim": "oid", "required_claims": {"azp": []}},
    ),
    "Entra with as many groups as it writes": (
        {"typ": "JWT", "alg": "RS256", "x5t": RSA.kid, "kid": RSA.kid},
        {"groups": [GUID] * 200, "oid": GUID},
        {"account_claim": "oid"},
    ),
    "Entra with more groups": (
        TYPED,
        {
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.example.com/getMemberObjects"}},
        },
        {},
    ),
    "Auth0": (
        TYPED,
        {
            "aud": ["tollkeeper", "https://tenant.eu.auth0.com/userinfo"],
            "azp": "client",
            "scope": "openid profile",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "gty": "password",
            "permissions": ["call:models"],
        },
        {},
    ),
    "Okta, an authorization server of one's own": (
        HEADER,
        {"ver": 1, "jti": "AT.x", "cid": "0oa", "uid": "00u", "scp": ["models"], "auth_time": 1},
        {"may_omit_type": True},
    ),
    "Okta, newer": (
        {**HEADER, "typ": "application/okta-internal-at+jwt"},
        {"ver": 1, "scp": ["models"]},
        {"types": ["okta-internal-at+jwt"]},
    ),
    "Keycloak": (
        TYPED,
        {
            "aud": ["tollkeeper", "account"],
            "typ": "Bearer",
            "azp": "app",
            "session_state": GUID,
            "acr": "1",
            "allowed-origins": ["*"],
            "realm_access": {"roles": ["offline_access", "uma_authorization"]},
            "resource_access": {"tollkeeper": {"roles": ["caller"]}},
            "scope": "profile email",
            "sid": GUID,
            "email_verified": True,
        },
        {},
    ),
    "Keycloak with a thousand roles": (
        TYPED,
        {
            "typ": "Bearer",
            "realm_access": {"roles": [f"department-{n}-role" for n in range(1_000)]},
        },
        {},
    ),
    "Keycloak before 10, with a nonce and a start of 0": (
        TYPED,
        {"typ": "Bearer", "nbf": 0, "nonce": GUID, "auth_time": NOW_S},
        {},
    ),
    "Google, an ID token": (
        TYPED,
        {
            "azp": "1234567890-abc.apps.googleusercontent.com",
            "hd": "example.com",
            "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
            "email": "ada@example.com",
            "email_verified": True,
            "picture": "https://lh3.example.com/a",
        },
        {"may_be_id_token": True, "required_claims": {"hd": ["example.com"]}},
    ),
    "Cognito, an access token": (
        HEADER,
        {
            "aud": None,
            "client_id": "tollkeeper",
            "origin_jti": GUID,
            "event_id": GUID,
            "token_use": "access",
            "scope": "aws.cognito.signin.user.admin",
            "auth_time": NOW_S,
            "username": "ada",
            "version": 2,
        },
        {"may_omit_type": True, "audience_claim": "client_id"},
    ),
    "Clerk": (
        {**TYPED, "cat": "cl_B7d4PD111AAA", "oiat": NOW_S},
        {
            "aud": None,
            "azp": "tollkeeper",
            "nbf": NOW_S - 10,
            "sid": "sess_1",
            "v": 2,
            "fva": [1, -1],
        },
        {"audience_claim": "azp"},
    ),
    "an issuer with members of its own in the header": (
        {**TYPED, "nonce": "n", "ver": "1.0", "x5t#S256": "x", "kty": "RSA", "org": {"id": [1]}},
        {},
        {},
    ),
    "GitHub Actions": (
        {**TYPED, "x5t": "x"},
        {"repository": "acme/app", "run_attempt": "1", "sub": "repo:acme/app:ref:refs/heads/main"},
        {},
    ),
    "a service account of Kubernetes": (
        HEADER,
        {
            "aud": ["tollkeeper"],
            "kubernetes.io": {"namespace": "a", "pod": {"name": "p", "uid": GUID}},
            "sub": "system:serviceaccount:a:b",
        },
        {"may_omit_type": True},
    ),
}


def setup_for(terms: dict[str, Any], by: Signer = RSA) -> VerifierSetup:
    read = IssuerTerms.from_json({"audiences": ["tollkeeper"], **terms})
    members = {name: getattr(read, name) for name in {"audiences", *terms}}
    return VerifierSetup(by, family=read.algorithms, **members)


@pytest.mark.parametrize("name", FORMS)
async def test_is_accepted(name: str) -> None:
    header, members, terms = FORMS[name]
    setup = setup_for(terms)
    examined = await setup.verifier.verify_with_reason(RSA.sign(claims(**members), header))
    assert isinstance(examined.verified, VerifiedIdentity), examined.reason


@pytest.mark.parametrize("value", [None, "another", ["another"], 7, {"tollkeeper": 1}])
async def test_another_audience_claim_is_checked_like_aud(value: object) -> None:
    setup = setup_for({"audience_claim": "client_id"})
    text = RSA.sign(claims(aud="tollkeeper", client_id=value), TYPED)
    assert re.search("client_id", await setup.refusal(text))
