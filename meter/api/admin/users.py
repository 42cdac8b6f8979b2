"""Users: the accounts, as administrators see and change them."""

import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field

from meter.accounts.account import Account
from meter.accounts.account_store import AccountChanges, NewAccount
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    AccountId,
    Email,
    Instant,
    MarkupBps,
    Name,
    Page,
    PageQuery,
    PlanId,
    RatesBody,
    Reply,
    Usd,
    UserId,
)
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromCursors
from meter.limits.limits import rates_to_json
from meter.money import format_usd

DEFAULT_PLAN: Final = "standard"
_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ID_CHARS: Final = 20
_REQUIRED: Final = ("plan", "may_manage_keys")
# Members of a change and what they are called in an account.
_MEMBERS: Final = {
    "name": "name",
    "plan": "plan_id",
    "markup_bps": "markup_bps",
    "may_manage_keys": "may_manage_keys",
}

router = APIRouter(prefix="/api/v1/admin/users", tags=["Users"], dependencies=AdministratorsOnly)


class NewUserBody(RatesBody):
    """A user to be made."""

    email: Email
    name: Name | None = None
    id: AccountId | None = Field(default=None, description="Ours to choose when left out")
    plan: PlanId = DEFAULT_PLAN
    markup_bps: MarkupBps | None = Field(default=None, description="Instead of the plan's")
    may_manage_keys: bool = Field(default=True, description="Whether with keys of their own")


class UserChangesBody(RatesBody):
    """New terms; what is left out stays as it is."""

    name: Name | None = None
    plan: PlanId | None = None
    markup_bps: MarkupBps | None = Field(default=None, description="null: the plan's applies")
    may_manage_keys: bool | None = None

    def to_changes(self) -> AccountChanges:
        """Return the changes that the body names."""
        given = self.model_fields_set
        terms = {
            name: getattr(self, member) for member, name in _MEMBERS.items() if member in given
        }
        return AccountChanges(terms, self.given_rates())


class UserReply(Reply):
    """A user, with credit in US dollars."""

    id: AccountId
    email: str
    name: str | None
    plan: str
    markup_bps: int | None = Field(description="null: the plan's applies")
    requests_per_minute: int | None = Field(description="null: the plan's applies")
    tokens_per_minute: int | None = Field(description="null: the plan's applies")
    concurrent_requests: int | None = Field(description="null: the plan's applies")
    may_manage_keys: bool
    is_suspended: bool
    balance: Usd
    held: Usd
    available: Usd
    overdrawn: Usd = Field(description="How far charges above their holds went below zero")
    is_blocked: bool = Field(description="Nothing is let in until available is back above zero")
    created_at: Instant

    @classmethod
    def from_account(cls, account: Account) -> "UserReply":
        return cls(
            id=account.id,
            email=account.email,
            name=account.name,
            plan=account.plan_id,
            markup_bps=account.markup_bps,
            **rates_to_json(account.rates),
            may_manage_keys=account.may_manage_keys,
            is_suspended=account.is_suspended,
            balance=format_usd(account.funds.balance_picos),
            held=format_usd(account.funds.held_picos),
            available=format_usd(account.funds.available_picos),
            overdrawn=format_usd(account.funds.overdrawn_picos),
            is_blocked=account.funds.is_blocked,
            created_at=account.created_at,
        )


class UserPageReply(Page):
    """Users, newest first."""

    data: list[UserReply]


class UserQuery(PageQuery):
    """Which users to list."""

    email: Annotated[Email | None, Query(description="Only the user with this email")] = None


@router.post("", status_code=201, summary="Create a user")
async def create_user(
    body: NewUserBody, actor: FromAdministrator, accounts: FromAccounts, response: Response
) -> UserReply:
    """Open an account without credit. 409 when the id or the email is taken."""
    new = NewAccount(
        id=body.id or _new_id(),
        email=body.email,
        name=body.name,
        plan_id=body.plan,
        markup_bps=body.markup_bps,
        rates=body.to_rates(),
        may_manage_keys=body.may_manage_keys,
    )
    account = await accounts.create(actor, new)
    response.headers["Location"] = f"{router.prefix}/{account.id}"
    return UserReply.from_account(account)


@router.get("", summary="List users")
async def list_users(
    query: Annotated[UserQuery, Query()], cursors: FromCursors, accounts: FromAccounts
) -> UserPageReply:
    """All users, newest first, or the one with a given email."""
    scope = f"users:{query.email}"
    after = cursors.open_instant(scope, query.cursor)
    rows = await accounts.list_page(query.email, after, query.limit + 1)
    page, cursor = cursors.next_page(
        scope, rows, query.limit, lambda last: (last.created_at.isoformat(), last.id)
    )
    return UserPageReply(
        data=[UserReply.from_account(account) for account in page], next_cursor=cursor
    )


@router.get("/{user_id}", summary="Get a user")
async def get_user(user_id: UserId, accounts: FromAccounts) -> UserReply:
    """One user with their credit."""
    return UserReply.from_account(await accounts.get(user_id))


@router.patch("/{user_id}", summary="Change a user's terms")
async def change_user(
    user_id: UserId, body: UserChangesBody, actor: FromAdministrator, accounts: FromAccounts
) -> UserReply:
    """Change terms. Holds that are open keep those they were placed under."""
    for name in _REQUIRED:
        if name in body.model_fields_set and getattr(body, name) is None:
            raise ProblemError(422, "invalid_request", f"body.{name}: must not be null")
    return UserReply.from_account(await accounts.change(actor, user_id, body.to_changes()))


@router.post("/{user_id}/suspend", summary="Suspend a user")
async def suspend_user(
    user_id: UserId, actor: FromAdministrator, accounts: FromAccounts
) -> UserReply:
    """No request of this user is let in from now on. Saying it twice changes nothing."""
    return UserReply.from_account(await accounts.set_suspended(actor, user_id, True))


@router.post("/{user_id}/resume", summary="Resume a user")
async def resume_user(
    user_id: UserId, actor: FromAdministrator, accounts: FromAccounts
) -> UserReply:
    """End a suspension. Saying it twice changes nothing."""
    return UserReply.from_account(await accounts.set_suspended(actor, user_id, False))


def _new_id() -> str:
    return "usr_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
