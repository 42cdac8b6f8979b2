"""Identities: subjects of JWT issuers and client certificates that act for a user."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    CREDENTIAL_ID,
    Body,
    Instant,
    LimitsBody,
    LimitsReply,
    PlainText,
    Reply,
    ShortId,
    UserId,
    either,
    path_id,
)
from meter.api.keys.key_terms import AllowedAddresses, AllowedModels, Scopes
from meter.api.services import FromAccounts, FromIdentities
from meter.errors import InvalidRequest
from meter.identity.identity_store import IdentityLink
from meter.identity.principal import CredentialKind
from meter.limits.limits import Rates
from meter.scopes import DEFAULT_SCOPES, Scope

MAX_SUBJECT_CHARS: Final = 255

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/identities",
    tags=["Identities"],
    dependencies=AdministratorsOnly,
)
Subject = Annotated[PlainText, Field(min_length=1, max_length=MAX_SUBJECT_CHARS)]


class IdentityBody(Body):
    """A subject to act for the user: either `issuer` and `subject`, or `certificate`."""

    model_config = ConfigDict(
        json_schema_extra=either(
            {"issuer": "string", "subject": "string", "certificate": "null", "scopes": "null"},
            {"issuer": "null", "subject": "null", "certificate": "string"},
        )
    )

    issuer: ShortId | None = Field(default=None, examples=["keycloak"])
    subject: Subject | None = Field(default=None, description="The `sub` of its JWTs")
    certificate: Subject | None = Field(
        default=None,
        description="A subject alternative name",
        examples=["spiffe://example.org/job", "job.example.org"],
    )
    scopes: Scopes | None = Field(
        default=None, description="Only for a certificate; the scopes of a JWT come from its claims"
    )
    allowed_models: AllowedModels | None = None
    allowed_addresses: AllowedAddresses | None = None
    limits: LimitsBody | None = Field(default=None, description="null: the limits of the plan")

    def to_link(self) -> IdentityLink:
        """Return the link that the body describes.

        Raises InvalidRequest unless it names one subject, and scopes for a certificate only.
        """
        given = (self.issuer is not None, self.subject is not None, self.certificate is not None)
        if given not in ((True, True, False), (False, False, True)):
            raise InvalidRequest("give either issuer and subject, or certificate")
        if self.scopes is not None and self.certificate is None:
            raise InvalidRequest(
                "the scopes of a JWT come from the terms of its issuer; leave scopes out"
            )
        subject = self.certificate or self.subject
        assert subject is not None
        models, addresses = self.allowed_models, self.allowed_addresses
        return IdentityLink(
            issuer_id=self.issuer,
            subject=subject,
            scopes=DEFAULT_SCOPES if self.scopes is None else frozenset(self.scopes),
            allowed_models=None if models is None else tuple(models),
            allowed_addresses=None if addresses is None else tuple(addresses),
            rates=Rates() if self.limits is None else self.limits.to_rates(),
        )


def _own_scopes(scopes: frozenset[Scope], members: ValidationInfo) -> list[Scope] | None:
    return None if members.data["kind"] is CredentialKind.IDENTITY else sorted(scopes)


class IdentityReply(Reply):
    """An identity or certificate that may act for the user."""

    id: str = Field(examples=["k3vtq2m6zwxa4b7c"])
    kind: CredentialKind
    issuer: str | None = Field(validation_alias="issuer_id")
    subject: str | None = Field(
        description="The subject of the issuer's JWTs, or the name in the certificate"
    )
    account_subject: str | None = Field(
        description="The subject that the account was opened for, if it is not the `sub`"
    )
    scopes: Annotated[list[Scope] | None, BeforeValidator(_own_scopes)] = Field(
        description="null: the scopes of its JWTs"
    )
    allowed_models: list[str] | None
    allowed_addresses: list[str] | None
    limits: LimitsReply = Field(validation_alias="rates")
    created_at: Instant
    created_by: str
    suspended_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Accurate to about a minute")


class IdentityListReply(Reply):
    """All identities of a user, oldest first."""

    data: list[IdentityReply]


IdentityId = Annotated[
    str,
    path_id("identity_id", CREDENTIAL_ID, "the user has no such identity", "k3vtq2m6zwxa4b7c"),
]


@router.get("", summary="List a user's identities")
async def list_identities(
    user_id: UserId, accounts: FromAccounts, identities: FromIdentities
) -> IdentityListReply:
    """List the identities and certificates of a user, revoked ones too.

    An identity of the kind `issued` is the one that passes of administrators act through.
    """
    await accounts.get(user_id)
    return IdentityListReply.model_validate({"data": await identities.list_all(user_id)})


@router.put("", summary="Link an identity to a user")
async def link_identity(
    user_id: UserId, body: IdentityBody, identities: FromIdentities, actor: FromAdministrator
) -> IdentityReply:
    """Let a subject or certificate act for the user, or replace its terms if it already does.

    409 if it acts or acted for another user, was revoked, or the user has identities of another
    issuer.
    """
    return IdentityReply.model_validate(await identities.link(user_id, body.to_link(), actor))


@router.post("/{identity_id}/suspend", summary="Suspend an identity")
async def suspend_identity(
    user_id: UserId, identity_id: IdentityId, identities: FromIdentities, actor: FromAdministrator
) -> IdentityReply:
    """Refuse all requests of the identity until it is resumed. May be repeated."""
    return IdentityReply.model_validate(
        await identities.set_suspended(user_id, identity_id, True, actor)
    )


@router.post("/{identity_id}/resume", summary="Resume an identity")
async def resume_identity(
    user_id: UserId, identity_id: IdentityId, identities: FromIdentities, actor: FromAdministrator
) -> IdentityReply:
    """End the suspension of the identity. May be repeated."""
    return IdentityReply.model_validate(
        await identities.set_suspended(user_id, identity_id, False, actor)
    )


@router.delete("/{identity_id}", status_code=204, summary="Revoke an identity")
async def revoke_identity(
    user_id: UserId, identity_id: IdentityId, identities: FromIdentities, actor: FromAdministrator
) -> None:
    """Revoke the identity for good. Its subject does not get another account either."""
    await identities.revoke(user_id, identity_id, actor)
