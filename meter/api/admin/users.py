"""Users: accounts, as administrators see and change them."""

import secrets
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import AliasPath, Field

from meter.accounts.account_store import AccountChanges, NewAccount
from meter.api.admin.credits import CreditsReply
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.cursors import instant_and_id
from meter.api.fields import (
    AccountId,
    Email,
    Instant,
    MarkupBps,
    Name,
    NotNull,
    Page,
    PageQuery,
    PlanId,
    RatesBody,
    Reply,
    UserId,
)
from meter.api.services import FromAccounts, FromCursors

DEFAULT_PLAN: Final = "standard"
_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ID_CHARS: Final = 20
# The members of a change, and their names in an account.
_MEMBERS: Final = {
    "name": "name",
    "plan": "plan_id",
    "markup_bps": "markup_bps",
    "may_manage_keys": "may_manage_keys",
}

router = APIRouter(prefix="/api/v1/admin/users", tags=["Users"], dependencies=AdministratorsOnly)


class NewUserBody(RatesBody):
    """A new user."""

    email: Email
    name: Name | None = None
    id: AccountId | None = Field(default=None, description="Left out: a random id")
    plan: PlanId = DEFAULT_PLAN
    markup_bps: MarkupBps | None = Field(default=None, description="In place of the plan's")
    may_manage_keys: bool = Field(
        default=True, description="Whether the user may make and change API keys"
    )


class UserChangesBody(RatesBody):
    """New terms; members that are left out stay as they are."""

    name: Name | None = None
    plan: Annotated[PlanId | None, NotNull()] = None
    markup_bps: MarkupBps | None = Field(default=None, description="null: that of the plan")
    may_manage_keys: Annotated[bool | None, NotNull()] = None

    def to_changes(self) -> AccountChanges:
        """Return the changes that the body names."""
        given = self.model_fields_set
        terms = {
            name: getattr(self, member) for member, name in _MEMBERS.items() if member in given
        }
        return AccountChanges(terms, self.given_rates())


def _own_limit(name: str) -> Any:
    return Field(validation_alias=AliasPath("rates", name), description="null: that of the plan")


class UserTermsReply(Reply):
    """A user."""

    id: AccountId
    email: str
    name: str | None
    plan: str = Field(validation_alias="plan_id")
    markup_bps: int | None = Field(description="null: that of the plan")
    requests_per_minute: int | None = _own_limit("requests_per_minute")
    tokens_per_minute: int | None = _own_limit("tokens_per_minute")
    concurrent_requests: int | None = _own_limit("concurrent_requests")
    requests_per_day: int | None = _own_limit("requests_per_day")
    requests_per_month: int | None = _own_limit("requests_per_month")
    may_manage_keys: bool
    is_suspended: bool


# In this order of the bases, the members of the second come first.
class UserReply(CreditsReply, UserTermsReply):
    """A user, with credit in US dollars."""

    created_at: Instant


class UserPageReply(Page):
    """Users, newest first."""

    data: list[UserReply]


class UserQuery(PageQuery):
    """The users to list."""

    email: Annotated[Email | None, Query(description="Only the user with this email")] = None


@router.post("", status_code=201, summary="Create a user")
async def create_user(
    body: NewUserBody, actor: FromAdministrator, accounts: FromAccounts, response: Response
) -> UserReply:
    """Create a user without credit. 409 if the id or the email is taken."""
    new = NewAccount(
        id=body.id or "usr_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS)),
        email=body.email,
        name=body.name,
        plan_id=body.plan,
        markup_bps=body.markup_bps,
        rates=body.to_rates(),
        may_manage_keys=body.may_manage_keys,
    )
    account = await accounts.create(actor, new)
    response.headers["Location"] = f"{router.prefix}/{account.id}"
    return UserReply.model_validate(account)


@router.get("", summary="List users")
async def list_users(
    query: Annotated[UserQuery, Query()], cursors: FromCursors, accounts: FromAccounts
) -> UserPageReply:
    """List all users, newest first, or the user with a given email."""
    scope = f"users:{query.email}"
    page, cursor = await cursors.page(
        scope,
        query,
        partial(accounts.list_page, query.email),
        lambda last: (last.created_at.isoformat(), last.id),
        instant_and_id,
    )
    return UserPageReply.of(page, cursor)


@router.get("/{user_id}", summary="Get a user")
async def get_user(user_id: UserId, accounts: FromAccounts) -> UserReply:
    """Return one user with terms and credit."""
    return UserReply.model_validate(await accounts.get(user_id))


@router.patch("/{user_id}", summary="Change a user's terms")
async def change_user(
    user_id: UserId, body: UserChangesBody, actor: FromAdministrator, accounts: FromAccounts
) -> UserReply:
    """Change the terms that the body names. Requests that are running keep theirs."""
    return UserReply.model_validate(await accounts.change(actor, user_id, body.to_changes()))


@router.post("/{user_id}/suspend", summary="Suspend a user")
async def suspend_user(
    user_id: UserId, actor: FromAdministrator, accounts: FromAccounts
) -> UserReply:
    """Refuse all requests of the user until the user is resumed. May be repeated."""
    return UserReply.model_validate(await accounts.set_suspended(actor, user_id, True))


@router.post("/{user_id}/resume", summary="Resume a user")
async def resume_user(
    user_id: UserId, actor: FromAdministrator, accounts: FromAccounts
) -> UserReply:
    """End the suspension of the user. May be repeated."""
    return UserReply.model_validate(await accounts.set_suspended(actor, user_id, False))
