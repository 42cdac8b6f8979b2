"""Passes: JWTs of ours that live shortly and may do less than the key they were made with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from meter.api.authentication import (
    AdministratorsOnly,
    FromAdministrator,
    FromCaller,
    FromKeyKeeper,
    FromReader,
    WithKey,
)
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
)
from meter.api.keys.key_terms import AllowedModels, Scopes
from meter.api.keys.replies import shown_maker
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromCursors, FromPasses, FromPassIssuer, FromPrincipals
from meter.errors import NotFound, NotPermitted
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

_PASS_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
# Whoever reads the answer can act by it.
_NOT_KEPT: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "no-store", "Pragma": "no-cache"}
)

_own = APIRouter(prefix="/api/v1", tags=["Passes"], dependencies=WithKey)
_of_users = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/passes", tags=["Passes"], dependencies=AdministratorsOnly
)


class NewPassBody(Body):
    """What a pass may do at most."""

    expires_in_s: int = Field(
        default=DEFAULT_PASS_LIFETIME_S, ge=MIN_PASS_LIFETIME_S, le=MAX_PASS_LIFETIME_S
    )
    scopes: Scopes | None = Field(
        default=None,
        description="Some of the credential's; left out: all but keys:write and those of "
        "administrators",
    )
    allowed_models: AllowedModels | None = Field(
        default=None, description="Ids or patterns, of those that the credential may call"
    )
    budget: Budget | None = Field(
        default=None, description="The most that it may spend in all its life, in US dollars"
    )

    def to_order(self) -> PassOrder:
        """The order; whether the credential may have such a pass is not looked at here."""
        return PassOrder(
            lifetime_s=self.expires_in_s,
            scopes=None if self.scopes is None else frozenset(self.scopes),
            allowed_models=None if self.allowed_models is None else tuple(self.allowed_models),
            budget_picos=None if self.budget is None else parse_usd(self.budget),
        )


class TokenReply(Reply):
    """A new pass with its JWT, this once; members as OAuth 2.0 names them."""

    access_token: str = Field(description="The JWT: present it as `Authorization: Bearer`")
    token_type: str = Field(examples=["Bearer"])
    expires_in: int = Field(description="Seconds", examples=[900])
    jti: str = Field(description="The id of the pass, to list and to revoke it by")
    scope: str = Field(description="Scopes with spaces between", examples=["inference"])

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
    """A pass without its JWT, which is not kept."""

    jti: str
    credential_id: str = Field(description="What it was made with", examples=["k3vtq2m6zwxa4b7c"])
    scopes: list[Scope]
    allowed_models: list[str] | None = Field(description="null: those of the credential")
    budget: Usd | None = Field(description="null: those of the credential")
    spent: Usd | None = Field(description="Of the budget; null where there is none")
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
            created_by=shown_maker(one.created_by) if is_own else one.created_by,
            created_at=one.created_at,
            expires_at=one.expires_at,
            revoked_at=one.revoked_at,
        )


class PassPageReply(Page):
    """Passes, newest first; those that ended are listed for a day."""

    data: list[PassReply]


Credential = Annotated[
    PlainText | None, Query(max_length=64, description="Only those made with this credential")
]


class PassQuery(PageQuery):
    """Which passes to list."""

    credential: Credential = None


class RevokedPassesReply(Reply):
    """How many passes could act before, and cannot any more."""

    revoked: int


def _pass_id(jti: Annotated[str, Path(examples=["Zk3vtq2m6zwxa4b7c_-0Qw"])]) -> str:
    """What cannot be an id is answered like an id that nobody has (rule R14)."""
    if _PASS_ID.fullmatch(jti) is None:
        raise NotFound("the user has no such pass")
    return jti


PassId = Annotated[str, Depends(_pass_id)]


@dataclass(frozen=True, slots=True)
class PassPages:
    """Reads pages of an account's passes, for administrators and for the account itself."""

    passes: FromPasses
    cursors: FromCursors

    async def get(self, account_id: str, query: PassQuery, is_own: bool = False) -> PassPageReply:
        """Return one page, newest first; `is_own` hides which administrator made a pass."""
        scope = f"passes:{account_id}:{query.credential}"
        after = self.cursors.open_instant(scope, query.cursor)
        rows = await self.passes.list_page(account_id, query.credential, after, query.limit + 1)
        page, cursor = self.cursors.next_page(
            scope, rows, query.limit, lambda last: (last.created_at.isoformat(), last.id)
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
    """Make a JWT that acts for a while as the key does, or as far as you say.

    A pass is not exchanged for another, and never lives longer than the key.
    """
    response.headers.update(_NOT_KEPT)
    order = (body or NewPassBody()).to_order()
    return TokenReply.from_issued(await pass_issuer.issue(caller.principal, order, caller.actor))


@_own.get("/passes", summary="List your passes")
async def list_own_passes(
    caller: FromReader, query: Annotated[PassQuery, Query()], pages: FromPassPages
) -> PassPageReply:
    """Your account's passes without their JWTs."""
    return await pages.get(caller.account_id, query, is_own=True)


@_own.delete("/passes", summary="Revoke your passes")
async def revoke_own_passes(
    caller: FromKeyKeeper, passes: FromPasses, credential: Credential = None
) -> RevokedPassesReply:
    """End all passes of your account, or all that were made with one credential."""
    revoked = await passes.revoke_all(caller.account_id, credential, caller.actor)
    return RevokedPassesReply(revoked=revoked)


@_own.delete("/passes/{jti}", status_code=204, summary="Revoke one of your passes")
async def revoke_own_pass(jti: PassId, caller: FromCaller, passes: FromPasses) -> None:
    """End a pass for good. A pass may end itself; ending others needs `keys:write`."""
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
    """Make a JWT that acts for the user, without any key of theirs."""
    response.headers.update(_NOT_KEPT)
    await accounts.get(user_id)
    principal = await principals.find(ByAccount(user_id))
    if principal is None:
        raise NotPermitted("what passes of administrators stand for is revoked or suspended")
    order = (body or NewPassBody()).to_order()
    return TokenReply.from_issued(await pass_issuer.issue(principal, order, actor))


@_of_users.get("", summary="List a user's passes")
async def list_passes(
    user_id: UserId,
    query: Annotated[PassQuery, Query()],
    accounts: FromAccounts,
    pages: FromPassPages,
) -> PassPageReply:
    """The user's passes without their JWTs."""
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
    """End all passes of the user, or all that were made with one credential."""
    await accounts.get(user_id)
    return RevokedPassesReply(revoked=await passes.revoke_all(user_id, credential, actor))


@_of_users.delete("/{jti}", status_code=204, summary="Revoke a pass")
async def revoke_pass(
    user_id: UserId, jti: PassId, passes: FromPasses, actor: FromAdministrator
) -> None:
    """End a pass for good. No request is let in with it once this has answered."""
    await passes.revoke(user_id, jti, actor)


router = APIRouter()
router.include_router(_own)
router.include_router(_of_users)
