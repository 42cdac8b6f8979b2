"""Keys as replies show them: without the secret, except once."""

from datetime import datetime
from typing import Any

from pydantic import Field

from meter.api.fields import Instant, LimitsReply, Page, Reply, Usd
from meter.identity.keys.key_terms import KeyStatus, Period, status_of
from meter.identity.principal import Credential, OwnKeyMode
from meter.scopes import Scope


class BudgetsReply(Reply):
    """The budgets of a key in each calendar period of UTC, and in its lifetime; null is none."""

    day: Usd | None = Field(validation_alias="day_picos")
    week: Usd | None = Field(validation_alias="week_picos")
    month: Usd | None = Field(validation_alias="month_picos")
    total: Usd | None = Field(validation_alias="total_picos")


class KeyReply(Reply):
    """A key without its secret, which is not stored."""

    id: str = Field(examples=["k3vtq2m6zwxa4b7c"])
    name: str
    prefix: str = Field(examples=["tk-k3vtq2m6zwxa4b7c"])
    status: KeyStatus
    scopes: list[Scope]
    allowed_models: list[str] | None = Field(description="null: every model")
    allowed_addresses: list[str] | None = Field(description="null: every address")
    budgets: BudgetsReply
    limits: LimitsReply = Field(description="Its own limits; null: that of the plan")
    tags: dict[str, str]
    own_key_mode: OwnKeyMode | None = Field(
        description="How requests use the account's keys of providers; null: as the account"
    )
    created_at: Instant
    created_by: str = Field(examples=["operator:operator", "key:k3vtq2m6zwxa4b7c"])
    expires_at: datetime | None
    suspended_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Accurate to about a minute")
    previous_secret_ends_at: datetime | None = Field(
        description="The end of the secret that the last rotation replaced; null if it has ended"
    )


class KeyPageReply(Page):
    """Keys, newest first, revoked ones included."""

    data: list[KeyReply]


class BudgetSpendingReply(Reply):
    """The use of one budget in the present period."""

    period: Period
    limit: Usd = Field(validation_alias="limit_picos")
    spent: Usd = Field(validation_alias="spent_picos")
    held: Usd = Field(
        validation_alias="held_picos", description="Set aside for requests that run now"
    )
    left: Usd = Field(validation_alias="left_picos")
    starts_at: datetime | None
    ends_at: datetime | None


class KeyDetailsReply(KeyReply):
    """A key with the use of its budgets."""

    spending: list[BudgetSpendingReply]


class ChangedKeyReply(KeyReply):
    """A key after a change; `warnings` are sentences about terms that may be mistakes."""

    warnings: list[str]


class IssuedKeyReply(ChangedKeyReply):
    """A key with its new secret, which no later reply contains."""

    key: str = Field(description="The secret; it is shown only this once")


def shown(credential: Credential, now: datetime, is_own: bool) -> dict[str, Any]:
    """Return the members of a key; `is_own` as for `shown_maker`."""
    return {
        "id": credential.id,
        "name": credential.name,
        "prefix": credential.prefix or "",
        "status": status_of(credential, now),
        "scopes": sorted(credential.scopes),
        "allowed_models": credential.allowed_models,
        "allowed_addresses": credential.allowed_addresses,
        "budgets": credential.budgets,
        "limits": credential.rates,
        "tags": dict(credential.tags),
        "own_key_mode": credential.own_key_mode,
        "created_at": credential.created_at,
        "created_by": shown_maker(credential.created_by, is_own),
        "expires_at": credential.expires_at,
        "suspended_at": credential.suspended_at,
        "revoked_at": credential.revoked_at,
        "last_used_at": credential.last_used_at,
        "previous_secret_ends_at": credential.previous_ends_at,
    }


def shown_maker(created_by: str, is_own: bool) -> str:
    """Return the maker of a key or pass; `is_own` hides the names of administrators."""
    is_by_account = created_by.startswith(("key:", "identity:", "certificate:"))
    return created_by if is_by_account or not is_own else "administrator"
