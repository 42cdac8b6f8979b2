"""Issuers of JWTs that are believed, as administrators set them."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Instant, Reply
from meter.api.services import FromClock, FromIssuerDocuments, FromIssuers, FromOwnIssuer
from meter.errors import InvalidRequest, NotFound
from meter.identity.issuer_store import ISSUER_ID, IssuerListing, NewIssuer
from meter.jwts.addresses import MAX_URL_CHARS, read_https_url
from meter.jwts.issuer_check import check_issuer
from meter.jwts.issuers import IssuerTerms

router = APIRouter(
    prefix="/api/v1/admin/issuers", tags=["Issuers"], dependencies=AdministratorsOnly
)


class IssuerBody(Body):
    """Who is believed, and what their claims mean here: docs/jwts.md has the terms."""

    url: str = Field(
        min_length=9,
        max_length=MAX_URL_CHARS,
        description="The `iss` of its JWTs, character by character",
        examples=["https://id.example.com/realms/main"],
    )
    terms: dict[str, Any] = Field(examples=[{"audiences": ["tollkeeper"]}])
    is_enabled: bool | None = Field(
        default=None, description="Left out: as it was; a new one is enabled"
    )


class IssuerReply(Reply):
    """An issuer as it is."""

    id: str
    url: str
    is_enabled: bool
    terms: dict[str, Any]
    identities: int = Field(description="How many of its subjects are known")
    kids: list[str | None] = Field(description="Ids of the keys that were fetched last")
    keys_fetched_at: datetime | None
    keys_age_s: int | None
    created_at: Instant
    updated_at: Instant


class IssuerListReply(Reply):
    """All issuers, by id."""

    data: list[IssuerReply]


class FindingReply(Reply):
    """What one step of a check came to."""

    step: str = Field(examples=["discovery", "keys"])
    is_good: bool
    said: str


class IssuerCheckReply(Reply):
    """What a check of an issuer came to."""

    is_good: bool
    findings: list[FindingReply]


def _issuer_id(issuer_id: Annotated[str, Path(examples=["keycloak"])]) -> str:
    """What cannot be an id is answered like an id that nobody has."""
    if ISSUER_ID.fullmatch(issuer_id) is None:
        raise NotFound("there is no such issuer")
    return issuer_id


IssuerId = Annotated[str, Depends(_issuer_id)]


@router.get("", summary="List issuers")
async def list_issuers(clock: FromClock, issuers: FromIssuers) -> IssuerListReply:
    """Everybody whose JWTs are believed, or were."""
    now = clock.now()
    return IssuerListReply(data=[_reply(one, now) for one in await issuers.list_all()])


@router.get("/{issuer_id}", summary="Get an issuer")
async def get_issuer(issuer_id: IssuerId, issuers: FromIssuers, clock: FromClock) -> IssuerReply:
    """One issuer, and how old the keys are that were fetched from it."""
    return _reply(await issuers.get(issuer_id), clock.now())


@router.put("/{issuer_id}", summary="Believe an issuer, or change its terms")
async def put_issuer(
    issuer_id: Annotated[str, Path()],
    body: IssuerBody,
    own_issuer: FromOwnIssuer,
    issuers: FromIssuers,
    clock: FromClock,
    actor: FromAdministrator,
) -> IssuerReply:
    """Within a second everywhere. The URL of an issuer stays as it is."""
    if ISSUER_ID.fullmatch(issuer_id) is None:
        raise InvalidRequest("an issuer's id has up to 64 of a-z, 0-9, _ and -")
    read_https_url(body.url)
    if "?" in body.url:
        raise InvalidRequest("an issuer's URL has no query; give it as `iss` has it")
    if body.url == own_issuer.url:
        raise InvalidRequest("this is our own URL: passes need no issuer")
    new = NewIssuer(issuer_id, body.url, IssuerTerms.from_json(body.terms), body.is_enabled)
    await issuers.put(new, actor)
    return _reply(await issuers.get(issuer_id), clock.now())


@router.post("/{issuer_id}/enable", summary="Enable an issuer")
async def enable_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, clock: FromClock, actor: FromAdministrator
) -> IssuerReply:
    """Believe its JWTs again. Saying it twice changes nothing."""
    await issuers.set_enabled(issuer_id, True, actor)
    return _reply(await issuers.get(issuer_id), clock.now())


@router.post("/{issuer_id}/disable", summary="Disable an issuer")
async def disable_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, clock: FromClock, actor: FromAdministrator
) -> IssuerReply:
    """Believe none of its JWTs any more, within a second everywhere."""
    await issuers.set_enabled(issuer_id, False, actor)
    return _reply(await issuers.get(issuer_id), clock.now())


@router.post("/{issuer_id}/check", summary="Check an issuer")
async def check_one_issuer(
    issuer_id: IssuerId, issuers: FromIssuers, issuer_documents: FromIssuerDocuments
) -> IssuerCheckReply:
    """Fetch its discovery document and keys now, and say what is wrong with them."""
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
    """Forget an issuer of which no subject is known; any other can only be disabled (409)."""
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
