"""The terms, the status and the spending of an API key. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from meter.identity.principal import Budgets, Credential, OwnKeyMode
from meter.limits.limits import Rates, rates_to_json
from meter.money import format_usd
from meter.scopes import DEFAULT_SCOPES, Scope

MAX_OVERLAP: Final = timedelta(days=30)
DEFAULT_OVERLAP: Final = timedelta(days=1)


class KeyStatus(StrEnum):
    """The status of a key. A revoked or expired key never counts as suspended."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Period(StrEnum):
    """The period of a budget: a day, a week from Monday, a month (UTC) or the key's whole life."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """The terms of a key, which its creator chooses.

    None for models, addresses or expiry means every model, every address, no expiry; None for the
    mode of own provider keys means that of the account.
    """

    name: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    allowed_models: tuple[str, ...] | None = None
    allowed_addresses: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    rates: Rates = field(default_factory=Rates)
    budgets: Budgets = field(default_factory=Budgets)
    tags: Mapping[str, str] = field(default_factory=dict)
    own_key_mode: OwnKeyMode | None = None

    @classmethod
    def of(cls, credential: Credential) -> "KeyTerms":
        """Return the terms of a key that exists."""
        return cls(
            name=credential.name,
            scopes=credential.scopes,
            allowed_models=credential.allowed_models,
            allowed_addresses=credential.allowed_addresses,
            expires_at=credential.expires_at,
            rates=credential.rates,
            budgets=credential.budgets,
            tags=credential.tags,
            own_key_mode=credential.own_key_mode,
        )

    def audit_detail(self) -> dict[str, Any]:
        """Return the terms in the form of the audit log."""
        return {
            "name": self.name,
            "scopes": sorted(self.scopes),
            "allowed_models": _listed(self.allowed_models),
            "allowed_addresses": _listed(self.allowed_addresses),
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            **rates_to_json(self.rates),
            **{f"budget_{period}": _usd(self.budgets, period) for period in Period},
            "tags": dict(self.tags),
            "own_key_mode": self.own_key_mode,
        }


@dataclass(frozen=True, slots=True)
class TermChanges:
    """New values for some terms of a key, by the names of the fields of KeyTerms.

    `budgets` and `rates` have the new values by the names of the fields of Budgets and Rates. All
    that is not named stays.
    """

    terms: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, int | None] = field(default_factory=dict)
    rates: Mapping[str, int | None] = field(default_factory=dict)

    def applied_to(self, before: KeyTerms) -> KeyTerms:
        """Return the terms with the changes."""
        return replace(
            before,
            budgets=replace(before.budgets, **self.budgets),
            rates=replace(before.rates, **self.rates),
            **self.terms,
        )


@dataclass(frozen=True, slots=True)
class Spending:
    """The use of one budget of a key in the present period."""

    period: Period
    limit_picos: int
    spent_picos: int
    held_picos: int
    starts_at: datetime | None
    ends_at: datetime | None

    @property
    def left_picos(self) -> int:
        """Return the rest of the budget; below zero after a charge above its hold."""
        return self.limit_picos - self.spent_picos - self.held_picos


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """A filter on keys: by status, by tag, or by the value of a tag. None means any."""

    status: KeyStatus | None = None
    tag: str | None = None
    tag_value: str | None = None


def status_of(credential: Credential, now: datetime) -> KeyStatus:
    """Return the status of a key."""
    if credential.revoked_at is not None:
        return KeyStatus.REVOKED
    if credential.expires_at is not None and credential.expires_at <= now:
        return KeyStatus.EXPIRED
    return KeyStatus.ACTIVE if credential.suspended_at is None else KeyStatus.SUSPENDED


def has_ended(credential: Credential, now: datetime) -> bool:
    """Return whether a key is revoked or expired."""
    return status_of(credential, now) in (KeyStatus.REVOKED, KeyStatus.EXPIRED)


def budget_of(budgets: Budgets, period: Period) -> int | None:
    """Return the budget for a period, in pico-dollars; None without one."""
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
