"""What an API key may do: the terms that its makers choose, and whether it lives. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from meter.identity.principal import Budgets, Credential
from meter.limits.limits import Rates, told_rates
from meter.money import format_usd
from meter.scopes import DEFAULT_SCOPES, Scope

MAX_OVERLAP: Final = timedelta(days=30)
DEFAULT_OVERLAP: Final = timedelta(days=1)


class KeyStatus(StrEnum):
    """What has become of a key. A key that is revoked or expired never counts as suspended."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Period(StrEnum):
    """What a budget is for: calendar periods of UTC, weeks from Monday, or the key's whole life."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is called and may do.

    None for models, addresses and expiry: every model, from everywhere, without end.
    """

    name: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    allowed_models: tuple[str, ...] | None = None
    allowed_addresses: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    rates: Rates = field(default_factory=Rates)
    budgets: Budgets = field(default_factory=Budgets)
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, credential: Credential) -> "KeyTerms":
        """The terms of a key that is there."""
        return cls(
            name=credential.name,
            scopes=credential.scopes,
            allowed_models=credential.allowed_models,
            allowed_addresses=credential.allowed_addresses,
            expires_at=credential.expires_at,
            rates=credential.rates,
            budgets=credential.budgets,
            tags=credential.tags,
        )

    def told(self) -> dict[str, Any]:
        """The terms as the audit log tells them."""
        return {
            "name": self.name,
            "scopes": sorted(self.scopes),
            "allowed_models": _listed(self.allowed_models),
            "allowed_addresses": _listed(self.allowed_addresses),
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            **told_rates(self.rates),
            **{f"budget_{period}": _usd(self.budgets, period) for period in Period},
            "tags": dict(self.tags),
        }


@dataclass(frozen=True, slots=True)
class Spending:
    """What a key used of one budget in the present period."""

    period: Period
    limit_picos: int
    spent_picos: int
    held_picos: int
    starts_at: datetime | None
    ends_at: datetime | None

    @property
    def left_picos(self) -> int:
        """What new requests may use; below zero where a charge came out above its hold."""
        return self.limit_picos - self.spent_picos - self.held_picos


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys to list: those of a status, those with a tag, or with that value of it."""

    status: KeyStatus | None = None
    tag: str | None = None
    tag_value: str | None = None


def status_of(credential: Credential, now: datetime) -> KeyStatus:
    """What has become of a key."""
    if credential.revoked_at is not None:
        return KeyStatus.REVOKED
    if credential.expires_at is not None and credential.expires_at <= now:
        return KeyStatus.EXPIRED
    return KeyStatus.ACTIVE if credential.suspended_at is None else KeyStatus.SUSPENDED


def has_ended(credential: Credential, now: datetime) -> bool:
    """Whether a key is revoked or has expired."""
    return status_of(credential, now) in (KeyStatus.REVOKED, KeyStatus.EXPIRED)


def budget_of(budgets: Budgets, period: Period) -> int | None:
    """The budget for a period, in pico-dollars."""
    by_period = {
        Period.DAY: budgets.day_picos,
        Period.WEEK: budgets.week_picos,
        Period.MONTH: budgets.month_picos,
        Period.TOTAL: budgets.total_picos,
    }
    return by_period[period]


def _usd(budgets: Budgets, period: Period) -> str | None:
    picos = budget_of(budgets, period)
    return None if picos is None else format_usd(picos)


def _listed(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)
