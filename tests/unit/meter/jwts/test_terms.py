"""Terms of issuers, and what claims of Keycloak, Auth0, Entra and Google come to under them."""

import json
import re
from typing import Any

import pytest

from meter.errors import InvalidRequest
from meter.jwts.claims import find_claim
from meter.jwts.terms import Family, IssuerTerms
from meter.jwts.verified import VerifiedIdentity
from meter.scopes import Scope
from tests.jwts import VerifierSetup, claims, signer
from tests.paths import ROOT

KEY = signer("RS256")
DOCS = ROOT / "docs" / "jwts.md"
LEAST: dict[str, Any] = {"audiences": ["tollkeeper"]}


def test_terms_survive_json() -> None:
    terms = IssuerTerms.from_json(
        {
            "audiences": ["a", "b"],
            "algorithms": "PS",
            "types": ["application/AT+JWT"],
            "may_omit_type": True,
            "jwks_url": "https://id.example.com/keys",
            "max_key_age_s": 60,
            "required_claims": {"azp": [], "hd": ["example.com"]},
            "may_be_id_token": True,
            "account_claim": "org.id",
            "scopes": {"realm_access.roles": {"admin": ["admin:read", "admin:write"]}},
            "default_scopes": ["inference"],
            "plan_claim": "groups",
            "plans": [{"value": "gold", "plan": "pro"}, {"value": "x", "plan": "basic"}],
            "default_plan": "standard",
            "may_create_accounts": True,
        }
    )
    assert IssuerTerms.from_json(json.loads(json.dumps(terms.to_json()))) == terms
    assert terms.types == {"at+jwt"} and terms.plans[0] == ("gold", "pro")


def test_what_is_not_said_is_strict() -> None:
    terms = IssuerTerms.from_json(LEAST)
    assert terms.algorithms is Family.RS and terms.types == {"jwt", "at+jwt"}
    assert not terms.default_scopes and not terms.may_create_accounts
    assert not terms.may_be_id_token and not terms.may_omit_type


REFUSED: list[Any] = [
    None,
    [],
    {},
    {"audiences": []},
    {"audiences": "tollkeeper"},
    {"audiences": [""]},
    {"audiences": ["a\x00"]},
    {"audiences": ["a"] * 201},
    {**LEAST, "algorithms": "HS"},
    {**LEAST, "algorithms": "RS256"},
    {**LEAST, "algorithms": ["RS", "ES"]},
    {**LEAST, "algorithms": "none"},
    {**LEAST, "types": []},
    {**LEAST, "jwks_url": "http://id.example.com"},
    {**LEAST, "jwks_url": "https://user:password@id.example.com"},
    {**LEAST, "jwks_url": "file:///etc/passwd"},
    {**LEAST, "max_key_age_s": 0},
    {**LEAST, "max_key_age_s": 604_801},
    {**LEAST, "max_key_age_s": True},
    {**LEAST, "max_key_age_s": 60.0},
    {**LEAST, "default_scopes": ["admin:read"]},
    {**LEAST, "default_scopes": ["everything"]},
    {**LEAST, "scopes": {"scope": ["inference"]}},
    {**LEAST, "scopes": {"scope": {"x": "inference"}}},
    {**LEAST, "scopes": {"scope": {"x": ["root"]}}},
    {**LEAST, "plans": [{"value": "x", "plan": "y"}]},
    {**LEAST, "plan_claim": "groups", "plans": [{"value": "x"}]},
    {**LEAST, "plan_claim": "groups", "plans": {"x": "y"}},
    {**LEAST, "default_plan": "Not A Plan"},
    {**LEAST, "may_create_accounts": "yes"},
    {**LEAST, "account_claim": ""},
    {**LEAST, "verify": False},
]


@pytest.mark.parametrize("members", REFUSED, ids=lambda members: str(members)[-50:])
def test_terms_that_believe_too_much_or_mean_nothing(members: object) -> None:
    with pytest.raises(InvalidRequest):
        IssuerTerms.from_json(members)


def test_claims_are_found_by_name_before_they_are_taken_apart() -> None:
    held: dict[str, Any] = {
        "https://example.com/roles": ["a"],
        "resource_access": {"my.client": {"roles": ["b"]}, "c": {"roles": ["d"]}},
        "realm_access.roles": ["e"],
        "realm_access": {"roles": ["f"]},
        "flat": "text",
    }
    assert find_claim(held, "https://example.com/roles") == ["a"]
    assert find_claim(held, "resource_access.my.client.roles") == ["b"]
    assert find_claim(held, "resource_access.c.roles") == ["d"]
    assert find_claim(held, "realm_access.roles") == ["e"]
    assert [find_claim(held, path) for path in ("flat.x", "none", ".", "a.b.c", "")] == [None] * 5


async def identity(terms: dict[str, Any], **members: Any) -> VerifiedIdentity:
    """Return what a JWT comes to under terms."""
    read = IssuerTerms.from_json({**LEAST, **terms})
    fields = {name: getattr(read, name) for name in IssuerTerms.__slots__}
    setup = VerifierSetup(KEY, family=Family.RS, **{**fields, "algorithms": Family.RS})
    verified = await setup.verifier.verify(KEY.sign(claims(**members)))
    assert isinstance(verified, VerifiedIdentity)
    return verified


ROLES = {
    "realm_access.roles": {"toll-admin": ["admin:read", "admin:write"]},
    "resource_access.tollkeeper.roles": {"caller": ["inference", "models:read"]},
    "scope": {"usage": ["usage:read"]},
    "groups": {"Key Keepers": ["keys:write", "billing:write"]},
}


async def test_roles_of_keycloak() -> None:
    found = await identity(
        {"scopes": ROLES},
        realm_access={"roles": ["offline_access", "toll-admin"]},
        resource_access={"tollkeeper": {"roles": ["caller"]}, "other": {"roles": ["x"]}},
        scope="openid usage",
        groups="Key Keepers",
        typ="Bearer",
        nonce="older Keycloaks put it into access tokens too",
    )
    assert found.scopes == frozenset(Scope)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"realm_access": {"roles": "toll-admin-not"}},
        {"realm_access": {"roles": ["Toll-Admin", "toll-admin ", ["toll-admin"], None]}},
        {"realm_access": ["toll-admin"]},
        {"roles": ["toll-admin"]},
        {"scope": "toll-admin admin:read admin:write usageful"},
        {"groups": "Key", "name": "toll-admin"},
        {"resource_access": {"other": {"roles": ["caller", "toll-admin"]}}},
    ],
    ids=str,
)
async def test_nobody_is_more_by_a_claim_that_is_not_mapped(members: dict[str, Any]) -> None:
    assert (await identity({"scopes": ROLES}, **members)).scopes == frozenset()


PLANS = {
    "plan_claim": "groups",
    "plans": [{"value": "gold", "plan": "pro"}, {"value": "all", "plan": "basic"}],
    "default_plan": "trial",
}


async def test_plans() -> None:
    assert (await identity(PLANS, groups=["all", "gold"])).plan_id == "pro"
    assert (await identity(PLANS, groups=["all"])).plan_id == "basic"
    assert (await identity(PLANS)).plan_id == "trial"
    left_alone = await identity({"default_plan": "trial"}, groups=["gold"])
    assert (left_alone.plan_id, left_alone.first_plan_id) == (None, "trial")


async def test_who_it_is() -> None:
    found = await identity(
        {"account_claim": "org.id", "may_create_accounts": True},
        org={"id": "acme"},
        name="Ada\x00",
        preferred_username="ada",
        email="ada@example.com",
        email_verified=True,
    )
    assert (found.subject, found.account_subject, found.name) == ("ada", "acme", "ada")
    assert found.email == "ada@example.com" and found.may_create
    assert (await identity({}, email="ada@example.com", email_verified="true")).email is None


async def test_claims_that_are_required() -> None:
    terms = {"required_claims": {"hd": ["example.com"], "azp": []}}
    assert await identity(terms, hd="example.com", azp="anything")
    for members in ({"hd": "example.com"}, {"hd": "example.org", "azp": "x"}, {"azp": "x"}):
        with pytest.raises(AssertionError):
            await identity(terms, **members)


async def test_id_tokens_where_an_issuer_has_nothing_else() -> None:
    members = {"nonce": "n", "at_hash": "h"}
    assert await identity({"may_be_id_token": True}, **members)
    with pytest.raises(AssertionError):
        await identity({}, **members)


def test_the_documented_terms_are_good_ones() -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(examples) >= 4
    for example in examples:
        assert IssuerTerms.from_json(json.loads(example))
