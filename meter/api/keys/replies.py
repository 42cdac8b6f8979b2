"""Keys as answers show them: never with a secret, but once."""

from datetime import datetime
from typing import Any

from pydantic import Field

from meter.api.fields import Instant, LimitsBody, Page, Reply, Usd
from meter.api.keys.key_terms import BudgetsBody
from meter.identity.keys.key_terms import KeyStatus, Period, Spending, status_of
from meter.identity.principal import Credential
from meter.money import format_usd
from meter.scopes import Scope


class KeyReply(Reply):
    """A key without its secret, which nobody has any more."""

    id: str = Field(examples=["k3vtq2m6zwxa4b7c"])
    name: str
    prefix: str = Field(examples=["tk-k3vtq2m6zwxa4b7c"])
    status: KeyStatus
    scopes: list[Scope]
    allowed_models: list[str] | None = Field(description="null: every model")
    allowed_addresses: list[str] | None = Field(description="null: from everywhere")
    budgets: BudgetsBody
    limits: LimitsBody = Field(description="Its own; where null, the plan's apply")
    tags: dict[str, str]
    created_at: Instant
    created_by: str = Field(examples=["operator:operator", "key:k3vtq2m6zwxa4b7c"])
    expires_at: datetime | None
    suspended_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To within a minute or so")
    previous_secret_ends_at: datetime | None = Field(
        description="While two secrets work: when the one before the last rotation ends"
    )


class KeyPageReply(Page):
    """Keys, newest first, revoked ones included."""

    data: list[KeyReply]


class BudgetSpendingReply(Reply):
    """What became of one budget in the present period."""

    period: Period
    limit: Usd
    spent: Usd
    held: Usd = Field(description="Set aside for requests that run now")
    left: Usd
    starts_at: datetime | None
    ends_at: datetime | None


class KeyDetailsReply(KeyReply):
    """A key with what it used of its budgets."""

    spending: list[BudgetSpendingReply]


class ChangedKeyReply(KeyReply):
    """A key as it is now; `warnings` are sentences about terms that may be mistakes."""

    warnings: list[str]


class IssuedKeyReply(ChangedKeyReply):
    """A key with a new secret, this once."""

    key: str = Field(description="The secret: it is never shown again")


def shown(credential: Credential, now: datetime, maker: str | None = None) -> dict[str, Any]:
    """The members of `Key`; `maker` stands in for who made it."""
    return {
        "id": credential.id,
        "name": credential.name,
        "prefix": credential.prefix or "",
        "status": status_of(credential, now),
        "scopes": sorted(credential.scopes),
        "allowed_models": _listed(credential.allowed_models),
        "allowed_addresses": _listed(credential.allowed_addresses),
        "budgets": BudgetsBody.from_budgets(credential.budgets),
        "limits": LimitsBody.from_rates(credential.rates),
        "tags": dict(credential.tags),
        "created_at": credential.created_at,
        "created_by": maker or credential.created_by,
        "expires_at": credential.expires_at,
        "suspended_at": credential.suspended_at,
        "revoked_at": credential.revoked_at,
        "last_used_at": credential.last_used_at,
        "previous_secret_ends_at": credential.previous_ends_at,
    }


def shown_maker(created_by: str) -> str:
    """Who made a key or pass, as its account sees it: which administrator it was is not told."""
    is_own = created_by.startswith(("key:", "identity:", "certificate:"))
    return created_by if is_own else "administrator"


def shown_spending(spending: Spending) -> BudgetSpendingReply:
    """One budget as it is shown."""
    return BudgetSpendingReply(
        period=spending.period,
        limit=format_usd(spending.limit_picos),
        spent=format_usd(spending.spent_picos),
        held=format_usd(spending.held_picos),
        left=format_usd(spending.left_picos),
        starts_at=spending.starts_at,
        ends_at=spending.ends_at,
    )


def _listed(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)
