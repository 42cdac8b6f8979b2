"""Signing keys: the keys that sign passes, as administrators see, rotate and remove them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Instant, Reply, path_id
from meter.api.services import FromClock, FromPublishedKeys, FromSigningKeys
from meter.identity.signing_key_store import SigningKey
from meter.jwts.signing import SigningAlgorithm

router = APIRouter(
    prefix="/api/v1/admin/signing-keys", tags=["Signing keys"], dependencies=AdministratorsOnly
)
Kid = Annotated[
    str, path_id("kid", r"[!-~]{1,64}", "there is no such signing key", "NzbLsXh8uDCcd-6MNwXF4W")
]


class SigningKeyRotationBody(Body):
    """The manner of a rotation."""

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
    published_until: datetime | None = Field(description="null until a later key replaces it")
    is_signing: bool


class SigningKeyListReply(Reply):
    """All published keys, youngest first."""

    data: list[SigningKeyReply]


@router.get("", summary="List signing keys")
async def list_signing_keys(
    published_keys: FromPublishedKeys, clock: FromClock
) -> SigningKeyListReply:
    """List the published keys; `is_signing` marks the one that signs now."""
    keys = await published_keys.list_keys()
    now = clock.now()
    # The list is youngest first: the first key whose time has come signs.
    signing = next((key.kid for key in keys if key.signs_from <= now), None)
    return SigningKeyListReply(data=[_listing(key, signing) for key in keys])


@router.post("/rotate", status_code=201, summary="Rotate the signing key")
async def rotate_signing_key(
    signing_keys: FromSigningKeys,
    actor: FromAdministrator,
    body: SigningKeyRotationBody | None = None,
) -> SigningKeyReply:
    """Publish a new key, which signs in two minutes or at once.

    Passes that older keys signed stay valid.
    """
    immediately = body is not None and body.immediately
    made = await signing_keys.rotate(immediately, actor)
    return _listing(made, made.kid if immediately else None)


@router.delete("/{kid}", status_code=204, summary="Remove a signing key")
async def remove_signing_key(
    kid: Kid, signing_keys: FromSigningKeys, actor: FromAdministrator
) -> None:
    """Remove a signing key that may have leaked. All passes that it signed are refused."""
    await signing_keys.remove(kid, actor)


def _listing(key: SigningKey, signing: str | None) -> SigningKeyReply:
    return SigningKeyReply(
        kid=key.kid,
        algorithm=key.algorithm,
        created_at=key.created_at,
        signs_from=key.signs_from,
        published_until=key.published_until,
        is_signing=key.kid == signing,
    )
