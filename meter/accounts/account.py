"""Accounts: who pays, one balance each; and the credentials that act for them."""

from dataclasses import dataclass
from datetime import datetime

from meter.limits.limits import NO_RATES, Rates
from meter.scopes import DEFAULT_SCOPES, Scope


@dataclass(frozen=True, slots=True)
class Funds:
    """What an account has, in pico-dollars. `available` is what a new hold may use."""

    balance_picos: int
    held_picos: int

    @property
    def available_picos(self) -> int:
        """Balance less what open holds have set aside."""
        return self.balance_picos - self.held_picos

    @property
    def overdrawn_picos(self) -> int:
        """How far charges beyond their holds have gone below zero."""
        return max(0, -self.available_picos)

    @property
    def is_blocked(self) -> bool:
        """Whether no hold is placed until credit is added: below zero, not even a free one."""
        return self.available_picos < 0


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays. `markup_bps` and `rates` are its own; where they are None, its plan's apply."""

    id: str
    email: str
    name: str | None
    plan_id: str
    markup_bps: int | None
    is_suspended: bool
    funds: Funds
    created_at: datetime
    rates: Rates = NO_RATES
    may_manage_keys: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """Terms shared by many accounts: of each account, and of each of its keys."""

    id: str
    name: str
    markup_bps: int
    rates: Rates = NO_RATES
    key_rates: Rates = NO_RATES
    max_keys: int = 100
    self_service_scopes: frozenset[Scope] = DEFAULT_SCOPES | {Scope.KEYS_WRITE}
