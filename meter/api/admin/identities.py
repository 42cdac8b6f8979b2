"""Identities: what acts for a user beside API keys, as administrators see and change it."""

import re
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Instant, LimitsBody, PlainText, Reply, ShortId, UserId
from meter.api.keys.key_terms import AllowedAddresses, AllowedModels, Scopes
from meter.api.services import FromAccounts, FromIdentities
from meter.errors import InvalidRequest, NotFound
from meter.identity.identity_store import Identity, IdentityLink
from meter.identity.principal import CredentialKind
from meter.limits.limits import Rates
from meter.scopes import DEFAULT_SCOPES, Scope

MAX_SUBJECT_CHARS: Final = 255
_IDENTITY_ID: Final = re.compile(r"[a-z2-7]{16}")

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/identities",
    tags=["Identities"],
    dependencies=AdministratorsOnly,
)
Subject = Annotated[PlainText, Field(min_length=1, max_length=MAX_SUBJECT_CHARS)]


class IdentityBody(Body):
    """Who is to act for the user: `issuer` and `subject`, or `certificate`."""

    issuer: ShortId | None = Field(default=None, examples=["keycloak"])
    subject: Subject | None = Field(default=None, description="The `sub` of its JWTs")
    certificate: Subject | None = Field(
        default=None,
        description="A subject alternative name",
        examples=["spiffe://example.org/job", "job.example.org"],
    )
    scopes: Scopes | None = Field(
        default=None, description="Of a certificate; a JWT brings its own"
    )
    allowed_models: AllowedModels | None = None
    allowed_addresses: AllowedAddresses | None = None
    limits: LimitsBody | None = Field(default=None, description="Where null, the plan's apply")

    def to_link(self) -> IdentityLink:
        """Raises InvalidRequest unless it names one subject, and scopes for a certificate only."""
        is_certificate = self.certificate is not None
        if is_certificate == (self.issuer is not None or self.subject is not None):
            raise InvalidRequest("give issuer and subject, or certificate")
        subject = self.certificate if is_certificate else self.subject
        if subject is None or (not is_certificate and self.issuer is None):
            raise InvalidRequest("issuer and subject belong together")
        if self.scopes is not None and not is_certificate:
            raise InvalidRequest("the scopes of a JWT are what its issuer's terms make of it")
        models, addresses = self.allowed_models, self.allowed_addresses
        return IdentityLink(
            issuer_id=self.issuer,
            subject=subject,
            scopes=DEFAULT_SCOPES if self.scopes is None else frozenset(self.scopes),
            allowed_models=None if models is None else tuple(models),
            allowed_addresses=None if addresses is None else tuple(addresses),
            rates=Rates() if self.limits is None else self.limits.to_rates(),
        )


class IdentityReply(Reply):
    """What may act for the user."""

    id: str = Field(examples=["k3vtq2m6zwxa4b7c"])
    kind: CredentialKind
    issuer: str | None
    subject: str | None = Field(description="Of the issuer's JWTs, or the name in the certificate")
    account_subject: str | None = Field(
        description="What the account was opened for, where another claim than `sub` says"
    )
    scopes: list[Scope] | None = Field(description="null: what its JWT says")
    allowed_models: list[str] | None
    allowed_addresses: list[str] | None
    limits: LimitsBody
    created_at: Instant
    created_by: str
    suspended_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To within a minute or so")

    @classmethod
    def from_identity(cls, one: Identity) -> "IdentityReply":
        is_jwt = one.kind is CredentialKind.IDENTITY
        models, addresses = one.allowed_models, one.allowed_addresses
        return cls(
            id=one.id,
            kind=one.kind,
            issuer=one.issuer_id,
            subject=one.subject,
            account_subject=one.account_subject,
            scopes=None if is_jwt else sorted(one.scopes),
            allowed_models=None if models is None else list(models),
            allowed_addresses=None if addresses is None else list(addresses),
            limits=LimitsBody.from_rates(one.rates),
            created_at=one.created_at,
            created_by=one.created_by,
            suspended_at=one.suspended_at,
            revoked_at=one.revoked_at,
            last_used_at=one.last_used_at,
        )


class IdentityListReply(Reply):
    """All of a user's, oldest first."""

    data: list[IdentityReply]


def _identity_id(identity_id: Annotated[str, Path(examples=["k3vtq2m6zwxa4b7c"])]) -> str:
    """What cannot be an id is answered like an id that nobody has (rule R14)."""
    if _IDENTITY_ID.fullmatch(identity_id) is None:
        raise NotFound("the user has no such identity")
    return identity_id


IdentityId = Annotated[str, Depends(_identity_id)]


@router.get("", summary="List a user's identities")
async def list_identities(
    user_id: UserId, accounts: FromAccounts, identities: FromIdentities
) -> IdentityListReply:
    """Subjects of issuers, certificates, and what passes of administrators stand for."""
    await accounts.get(user_id)
    found = await identities.list_all(user_id)
    return IdentityListReply(data=[IdentityReply.from_identity(one) for one in found])


@router.put("", summary="Link an identity to a user")
async def link_identity(
    user_id: UserId, body: IdentityBody, identities: FromIdentities, actor: FromAdministrator
) -> IdentityReply:
    """Let a subject or certificate act for the user, on these terms; again: change the terms.

    409 where it acts for another user, or the user has identities of another issuer.
    """
    return IdentityReply.from_identity(await identities.link(user_id, body.to_link(), actor))


@router.post("/{identity_id}/suspend", summary="Suspend an identity")
async def suspend_identity(
    user_id: UserId, identity_id: IdentityId, identities: FromIdentities, actor: FromAdministrator
) -> IdentityReply:
    """Let it act no more until it is resumed."""
    return IdentityReply.from_identity(
        await identities.set_suspended(user_id, identity_id, True, actor)
    )


@router.post("/{identity_id}/resume", summary="Resume an identity")
async def resume_identity(
    user_id: UserId, identity_id: IdentityId, identities: FromIdentities, actor: FromAdministrator
) -> IdentityReply:
    """End a suspension."""
    return IdentityReply.from_identity(
        await identities.set_suspended(user_id, identity_id, False, actor)
    )


@router.delete("/{identity_id}", status_code=204, summary="Revoke an identity")
async def revoke_identity(
    user_id: UserId, identity_id: IdentityId, identities: FromIdentities, actor: FromAdministrator
) -> None:
    """End it for good. The subject gets no other account either."""
    await identities.revoke(user_id, identity_id, actor)
