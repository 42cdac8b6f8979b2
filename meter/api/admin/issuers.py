"""Issuers whose JWTs are accepted, as administrators set them."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path
from pydantic import ConfigDict, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    SHORT_ID,
    Body,
    Instant,
    PlanId,
    Reply,
    ScopeName,
    ShortId,
    UserScope,
    either,
    path_id,
)
from meter.api.services import FromClock, FromIssuerDocuments, FromIssuers, FromOwnIssuer
from meter.errors import Conflict, InvalidRequest
from meter.identity.issuer_store import IssuerListing, NewIssuer
from meter.jwts.addresses import MAX_URL_CHARS, read_https_url
from meter.jwts.issuer_check import check_issuer
from meter.jwts.issuers import IssuerTerms
from meter.jwts.terms import (
    AUDIENCE_CLAIM,
    DEFAULT_KEY_AGE_S,
    DEFAULT_TYPES,
    MAX_KEY_AGE_S,
    MAX_LISTED,
    MAX_TEXT_CHARS,
    Family,
)

router = APIRouter(
    prefix="/api/v1/admin/issuers", tags=["Issuers"], dependencies=AdministratorsOnly
)


# The readers of `IssuerTerms` check the form of texts and URLs, which no pattern can say.
Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TEXT_CHARS, json_schema_extra={"format": "printable"}),
]
Texts = Annotated[list[Text], Field(max_length=MAX_LISTED)]
HttpsUrl = Annotated[
    str,
    Field(
        min_length=9,
        max_length=MAX_URL_CHARS,
        json_schema_extra={
            "pattern": r"^https://[a-z0-9]+([.-][a-z0-9]+)*(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~/-]*)?$"
        },
    ),
]
T = TypeVar("T")
TextMap = Annotated[dict[Text, T], Field(max_length=MAX_LISTED)]


class PlanRuleBody(Body):
    """The plan of accounts whose plan claim has this value."""

    value: Text
    plan: PlanId


class TermsBody(Body):
    """The terms for the JWTs of an issuer; docs/jwts.md describes each, with examples.

    `plans` needs `plan_claim`. `types` may be empty only with `may_omit_type`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "anyOf": [
                        {"properties": {"plans": {"maxItems": 0}}},
                        *either({"plan_claim": "string"})["anyOf"],
                    ]
                },
                {
                    "anyOf": [
                        {"properties": {"types": {"minItems": 1}}},
                        *either({"may_omit_type": {"const": True}})["anyOf"],
                    ]
                },
            ]
        }
    )

    audiences: Annotated[Texts, Field(min_length=1, examples=[["tollkeeper"]])]
    audience_claim: Text = AUDIENCE_CLAIM
    algorithms: Annotated[Family, Field(strict=False)] = Family.RS
    types: Texts = Field(default_factory=lambda: sorted(DEFAULT_TYPES))
    may_omit_type: bool = False
    jwks_url: HttpsUrl | None = Field(default=None, description="null: as discovered")
    max_key_age_s: int = Field(default=DEFAULT_KEY_AGE_S, ge=1, le=MAX_KEY_AGE_S)
    required_claims: TextMap[Texts] = Field(default={})
    may_be_id_token: bool = False
    account_claim: Text = "sub"
    scopes: TextMap[TextMap[list[ScopeName]]] = Field(default={})
    default_scopes: list[UserScope] = Field(default=[])
    plan_claim: Text | None = None
    plans: list[PlanRuleBody] = Field(default=[], max_length=MAX_LISTED)
    default_plan: PlanId | None = None
    may_create_accounts: bool = False


class IssuerBody(Body):
    """The URL of an issuer, and the terms for its JWTs."""

    url: HttpsUrl = Field(
        description="The `iss` of its JWTs, character by character",
        examples=["https://id.example.com/realms/main"],
    )
    terms: TermsBody
    is_enabled: bool | None = Field(
        default=None, description="Left out: unchanged; a new issuer is enabled"
    )


class IssuerReply(Reply):
    """An issuer with its terms and the state of its keys."""

    id: str
    url: str
    is_enabled: bool
    terms: dict[str, Any]
    identities: int = Field(description="Number of its subjects that are known")
    kids: list[str | None] = Field(description="Ids of the keys that were fetched last")
    keys_fetched_at: datetime | None
    keys_age_s: int | None
    created_at: Instant
    updated_at: Instant


class IssuerListReply(Reply):
    """All issuers, by id."""

    data: list[IssuerReply]


class FindingReply(Reply):
    """The result of one step of a check."""

    step: str = Field(examples=["discovery", "keys"])
    is_good: bool
    said: str


class IssuerCheckReply(Reply):
    """The results of a check of an issuer."""

    is_good: bool
    findings: list[FindingReply]


IssuerId = Annotated[str, path_id("issuer_id", SHORT_ID, "there is no such issuer", "keycloak")]


@router.get("", summary="List issuers")
async def list_issuers(clock: FromClock, issuers: FromIssuers) -> IssuerListReply:
    """List all issuers, disabled ones too."""
    now = clock.now()
    return IssuerListReply(data=[_reply(one, now) for one in await issuers.list_all()])


@router.get("/{issuer_id}", summary="Get an issuer")
async def get_issuer(issuer_id: IssuerId, issuers: FromIssuers, clock: FromClock) -> IssuerReply:
    """Return one issuer, and the age of the keys that were fetched from it."""
    return _reply(await issuers.get(issuer_id), clock.now())


@router.put("/{issuer_id}", summary="Accept an issuer, or change its terms")
async def put_issuer(
    issuer_id: Annotated[ShortId, Path(examples=["keycloak"])],
    body: IssuerBody,
    own_issuer: FromOwnIssuer,
    issuers: FromIssuers,
    clock: FromClock,
    actor: FromAdministrator,
) -> IssuerReply:
    """Accept the JWTs of an issuer, or change its terms; in effect everywhere within a second.

    409 for the URL of another issuer or of this gateway, and for another URL of a known issuer.
    """
    read_https_url(body.url)
    if "?" in body.url:
        raise InvalidRequest("the URL of an issuer has no query; give it as `iss` has it")
    if body.url == own_issuer.url:
        raise Conflict("this is the URL of this gateway, whose passes need no issuer")
    terms = body.terms.model_dump(mode="json", exclude_unset=True)
    new = NewIssuer(issuer_id, body.url, IssuerTerms.from_json(terms), body.is_enabled)
    await issuers.put(new, actor)
    return _reply(await issuers.get(issuer_id), clock.now())


@router.post("/{issuer_id}/enable", summary="Enable an issuer")
async def enable_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, clock: FromClock, actor: FromAdministrator
) -> IssuerReply:
    """Accept the JWTs of the issuer again. May be repeated."""
    await issuers.set_enabled(issuer_id, True, actor)
    return _reply(await issuers.get(issuer_id), clock.now())


@router.post("/{issuer_id}/disable", summary="Disable an issuer")
async def disable_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, clock: FromClock, actor: FromAdministrator
) -> IssuerReply:
    """Refuse the JWTs of the issuer, everywhere within a second. May be repeated."""
    await issuers.set_enabled(issuer_id, False, actor)
    return _reply(await issuers.get(issuer_id), clock.now())


@router.post("/{issuer_id}/check", summary="Check an issuer")
async def check_one_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, issuer_documents: FromIssuerDocuments
) -> IssuerCheckReply:
    """Fetch the discovery document and the keys of the issuer now, and report their faults."""
    issuer = (await issuers.get(issuer_id)).stored.issuer
    findings = await check_issuer(issuer, issuer_documents)
    return IssuerCheckReply(
        is_good=all(one.is_good for one in findings),
        findings=[FindingReply.model_validate(one) for one in findings],
    )


@router.delete("/{issuer_id}", status_code=204, summary="Remove an issuer")
async def remove_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, actor: FromAdministrator
) -> None:
    """Remove an issuer without known subjects; any other can only be disabled (409)."""
    await issuers.remove(issuer_id, actor)


def _reply(listing: IssuerListing, now: datetime) -> IssuerReply:
    stored = listing.stored
    fetched_at = stored.keys_fetched_at
    keys = [] if stored.keys is None else stored.keys.get("keys", [])
    return IssuerReply(
        id=stored.issuer.id,
        url=stored.issuer.url,
        is_enabled=stored.issuer.is_enabled,
        terms=stored.issuer.terms.to_json(),
        identities=listing.identities,
        kids=[key.get("kid") for key in keys],
        keys_fetched_at=fetched_at,
        keys_age_s=None if fetched_at is None else max(0, int((now - fetched_at).total_seconds())),
        created_at=listing.created_at,
        updated_at=listing.updated_at,
    )
