"""Passes: short-lived JWTs of this gateway, with the rights of their key at most."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from meter.api.authentication import (
    AdministratorsOnly,
    FromAdministrator,
    FromCaller,
    FromKeyKeeper,
    FromReader,
    WithKey,
)
from meter.api.cursors import instant_and_id
from meter.api.fields import (
    Body,
    Budget,
    Instant,
    Page,
    PageQuery,
    PlainText,
    Reply,
    Usd,
    UserId,
    path_id,
)
from meter.api.keys.key_terms import AllowedModels, Scopes
from meter.api.keys.replies import shown_maker
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromCursors, FromPasses, FromPassIssuer, FromPrincipals
from meter.errors import NotPermitted
from meter.identity.pass_issuer import IssuedPass
from meter.identity.passes import (
    DEFAULT_PASS_LIFETIME_S,
    MAX_PASS_LIFETIME_S,
    MIN_PASS_LIFETIME_S,
    Pass,
    PassOrder,
)
from meter.identity.principal import ByAccount
from meter.money import format_usd, parse_usd
from meter.scopes import Scope

# Everybody who reads the reply can use the pass.
_NOT_KEPT: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "no-store", "Pragma": "no-cache"}
)

_own = APIRouter(prefix="/api/v1", tags=["Passes"], dependencies=WithKey)
_of_users = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/passes", tags=["Passes"], dependencies=AdministratorsOnly
)


class NewPassBody(Body):
    """The most that a new pass may do."""

    expires_in_s: int = Field(
        default=DEFAULT_PASS_LIFETIME_S, ge=MIN_PASS_LIFETIME_S, le=MAX_PASS_LIFETIME_S
    )
    scopes: Scopes | None = Field(
        default=None,
        description="A part of the credential's scopes; left out: all except keys:write and "
        "admin scopes",
    )
    allowed_models: AllowedModels | None = Field(
        default=None,
        description="Ids or patterns of models, among those that the credential may call",
    )
    budget: Budget | None = Field(
        default=None, description="The most that the pass may spend, in US dollars"
    )

    def to_order(self) -> PassOrder:
        """Return the order. The pass issuer checks whether the credential may have such a pass."""
        return PassOrder(
            lifetime_s=self.expires_in_s,
            scopes=None if self.scopes is None else frozenset(self.scopes),
            allowed_models=None if self.allowed_models is None else tuple(self.allowed_models),
            budget_picos=None if self.budget is None else parse_usd(self.budget),
        )


class TokenReply(Reply):
    """A new pass with its JWT, which no later reply contains; members are named as in OAuth 2.0."""

    access_token: str = Field(description="The JWT; send it as `Authorization: Bearer`")
    token_type: str = Field(examples=["Bearer"])
    expires_in: int = Field(description="Seconds", examples=[900])
    jti: str = Field(description="The id of the pass, with which it is listed and revoked")
    scope: str = Field(description="Scopes, separated by spaces", examples=["inference"])

    @classmethod
    def from_issued(cls, issued: IssuedPass) -> "TokenReply":
        terms = issued.terms
        return cls(
            access_token=issued.jwt.reveal(),
            token_type="Bearer",
            expires_in=int((terms.expires_at - terms.created_at).total_seconds()),
            jti=terms.id,
            scope=" ".join(sorted(terms.scopes)),
        )


class PassReply(Reply):
    """A pass without its JWT, which is not stored."""

    jti: str
    credential_id: str = Field(
        description="The credential that it was made with", examples=["k3vtq2m6zwxa4b7c"]
    )
    scopes: list[Scope]
    allowed_models: list[str] | None = Field(description="null: those of the credential")
    budget: Usd | None = Field(description="null: those of the credential")
    spent: Usd | None = Field(description="Spent of the budget; null without one")
    created_by: str
    created_at: Instant
    expires_at: Instant
    revoked_at: datetime | None

    @classmethod
    def from_pass(cls, one: Pass, is_own: bool) -> "PassReply":
        has_budget = one.budget_picos is not None
        return cls(
            jti=one.id,
            credential_id=one.credential_id,
            scopes=sorted(one.scopes),
            allowed_models=None if one.allowed_models is None else list(one.allowed_models),
            budget=None if one.budget_picos is None else format_usd(one.budget_picos),
            spent=format_usd(one.spent_picos) if has_budget else None,
            created_by=shown_maker(one.created_by, is_own),
            created_at=one.created_at,
            expires_at=one.expires_at,
            revoked_at=one.revoked_at,
        )


class PassPageReply(Page):
    """Passes, newest first; a pass that has ended stays in the list for a day."""

    data: list[PassReply]


Credential = Annotated[
    PlainText | None, Query(max_length=64, description="Only passes made with this credential")
]


class PassQuery(PageQuery):
    """The passes to list."""

    credential: Credential = None


class RevokedPassesReply(Reply):
    """The number of passes that were valid until now."""

    revoked: int


PassId = Annotated[
    str,
    path_id("jti", r"[A-Za-z0-9_-]{16,64}", "the user has no such pass", "Zk3vtq2m6zwxa4b7c_-0Qw"),
]


@dataclass(frozen=True, slots=True)
class PassPages:
    """Reads pages of an account's passes, for administrators and for the account itself."""

    passes: FromPasses
    cursors: FromCursors

    async def get(self, account_id: str, query: PassQuery, is_own: bool = False) -> PassPageReply:
        """Return one page, newest first; `is_own` hides the names of administrators."""
        scope = f"passes:{account_id}:{query.credential}"
        page, cursor = await self.cursors.page(
            scope,
            query,
            partial(self.passes.list_page, account_id, query.credential),
            lambda last: (last.created_at.isoformat(), last.id),
            instant_and_id,
        )
        data = [PassReply.from_pass(one, is_own) for one in page]
        return PassPageReply(data=data, next_cursor=cursor)


FromPassPages = Annotated[PassPages, Depends()]


@_own.post("/auth/token", summary="Exchange a key for a pass")
async def exchange_for_pass(
    caller: FromCaller,
    pass_issuer: FromPassIssuer,
    response: Response,
    body: NewPassBody | None = None,
) -> TokenReply:
    """Create a JWT with the rights of the key, or with fewer rights, for a limited time.

    A pass cannot be exchanged for another pass, and never expires later than the key.
    """
    response.headers.update(_NOT_KEPT)
    order = (body or NewPassBody()).to_order()
    return TokenReply.from_issued(await pass_issuer.issue(caller.principal, order, caller.actor))


@_own.get("/passes", summary="List your passes")
async def list_own_passes(
    caller: FromReader, query: Annotated[PassQuery, Query()], pages: FromPassPages
) -> PassPageReply:
    """List the passes of your account without their JWTs, newest first."""
    return await pages.get(caller.account_id, query, is_own=True)


@_own.delete("/passes", summary="Revoke your passes")
async def revoke_own_passes(
    caller: FromKeyKeeper, passes: FromPasses, credential: Credential = None
) -> RevokedPassesReply:
    """Revoke all passes of your account, or all that were made with one credential."""
    revoked = await passes.revoke_all(caller.account_id, credential, caller.actor)
    return RevokedPassesReply(revoked=revoked)


@_own.delete("/passes/{jti}", status_code=204, summary="Revoke one of your passes")
async def revoke_own_pass(jti: PassId, caller: FromCaller, passes: FromPasses) -> None:
    """Revoke a pass for good. A pass may revoke itself; other passes need `keys:write`."""
    principal = caller.principal
    if principal.pass_id != jti and Scope.KEYS_WRITE not in principal.scopes:
        message = "without the scope keys:write, a credential may revoke only itself"
        raise ProblemError(403, "insufficient_scope", message)
    await passes.revoke(caller.account_id, jti, caller.actor)


@_of_users.post("", status_code=201, summary="Issue a pass for a user")
async def issue_pass(
    user_id: UserId,
    accounts: FromAccounts,
    principals: FromPrincipals,
    pass_issuer: FromPassIssuer,
    actor: FromAdministrator,
    response: Response,
    body: NewPassBody | None = None,
) -> TokenReply:
    """Create a JWT that acts for the user, without a key of the user."""
    response.headers.update(_NOT_KEPT)
    await accounts.get(user_id)
    principal = await principals.find(ByAccount(user_id))
    if principal is None:
        raise NotPermitted(
            "the identity through which administrators issue passes for this user is revoked or "
            "suspended; resume it under the user's identities"
        )
    order = (body or NewPassBody()).to_order()
    return TokenReply.from_issued(await pass_issuer.issue(principal, order, actor))


@_of_users.get("", summary="List a user's passes")
async def list_passes(
    user_id: UserId,
    query: Annotated[PassQuery, Query()],
    accounts: FromAccounts,
    pages: FromPassPages,
) -> PassPageReply:
    """List the passes of a user without their JWTs, newest first."""
    await accounts.get(user_id)
    return await pages.get(user_id, query)


@_of_users.delete("", summary="Revoke a user's passes")
async def revoke_passes(
    user_id: UserId,
    accounts: FromAccounts,
    passes: FromPasses,
    actor: FromAdministrator,
    credential: Credential = None,
) -> RevokedPassesReply:
    """Revoke all passes of the user, or all that were made with one credential."""
    await accounts.get(user_id)
    return RevokedPassesReply(revoked=await passes.revoke_all(user_id, credential, actor))


@_of_users.delete("/{jti}", status_code=204, summary="Revoke a pass")
async def revoke_pass(
    user_id: UserId, jti: PassId, passes: FromPasses, actor: FromAdministrator
) -> None:
    """Revoke a pass for good. Every later request with it is refused."""
    await passes.revoke(user_id, jti, actor)


router = APIRouter()
router.include_router(_own)
router.include_router(_of_users)
