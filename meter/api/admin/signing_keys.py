"""Signing keys: what signs passes, as administrators see, rotate and remove it."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Instant, Reply
from meter.api.services import FromClock, FromPublishedKeys, FromSigningKeys
from meter.errors import NotFound
from meter.identity.signing_key_store import SigningKey
from meter.jwts.signing import SigningAlgorithm

MAX_KID_CHARS: Final = 64

router = APIRouter(
    prefix="/api/v1/admin/signing-keys", tags=["Signing keys"], dependencies=AdministratorsOnly
)


class SigningKeyRotationBody(Body):
    """How to rotate."""

    immediately: bool = Field(
        default=False,
        description="Sign with the new key at once, instead of two minutes after it is published",
    )


class SigningKeyReply(Reply):
    """A signing key without its private half."""

    kid: str
    algorithm: SigningAlgorithm
    created_at: Instant
    signs_from: Instant
    published_until: datetime | None = Field(description="null: until another follows it")
    is_signing: bool


class SigningKeyListReply(Reply):
    """All that are published, youngest first."""

    data: list[SigningKeyReply]


@router.get("", summary="List signing keys")
async def list_signing_keys(
    published_keys: FromPublishedKeys, clock: FromClock
) -> SigningKeyListReply:
    """The keys that are published, and which of them signs."""
    keys = await published_keys.list_keys()
    now = clock.now()
    return SigningKeyListReply(data=[_listing(key, _signing(keys, now)) for key in keys])


@router.post("/rotate", status_code=201, summary="Rotate the signing key")
async def rotate_signing_key(
    signing_keys: FromSigningKeys,
    actor: FromAdministrator,
    body: SigningKeyRotationBody | None = None,
) -> SigningKeyReply:
    """Publish a new key, which signs two minutes from now or at once. Passes stay good."""
    immediately = body is not None and body.immediately
    made = await signing_keys.rotate(immediately, actor)
    return _listing(made, made.kid if immediately else None)


@router.delete("/{kid}", status_code=204, summary="Remove a signing key")
async def remove_signing_key(
    kid: Annotated[str, Path()], signing_keys: FromSigningKeys, actor: FromAdministrator
) -> None:
    """For a key that somebody else may have: every pass that it signed is refused from now on."""
    if len(kid) > MAX_KID_CHARS or not kid.isprintable():
        raise NotFound("there is no such signing key")
    await signing_keys.remove(kid, actor)


def _signing(keys: list[SigningKey], now: datetime) -> str | None:
    """The list is youngest first: the first whose time has come."""
    return next((key.kid for key in keys if key.signs_from <= now), None)


def _listing(key: SigningKey, signing: str | None) -> SigningKeyReply:
    return SigningKeyReply(
        kid=key.kid,
        algorithm=key.algorithm,
        created_at=key.created_at,
        signs_from=key.signs_from,
        published_until=key.published_until,
        is_signing=key.kid == signing,
    )
