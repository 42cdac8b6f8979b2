"""Accounts, which pay and have one balance each. Pure."""

from dataclasses import dataclass
from datetime import datetime

from meter.limits.limits import NO_RATES, Rates


@dataclass(frozen=True, slots=True)
class Funds:
    """The money of an account, in pico-dollars. A new hold may use what is available.

    `expired_picos` is credit that has expired and is still in the balance: its posting comes within
    seconds, and new holds may not use it.
    """

    balance_picos: int
    held_picos: int
    expired_picos: int = 0

    @property
    def available_picos(self) -> int:
        """Return the balance less what open holds have set aside, and less expired credit."""
        return self.balance_picos - self.held_picos - self.expired_picos

    @property
    def overdrawn_picos(self) -> int:
        """Return how far charges above their holds have taken the available amount below zero."""
        return max(0, -self.available_picos)

    @property
    def is_blocked(self) -> bool:
        """Return whether the account is below zero: then not even a hold of zero is placed."""
        return self.available_picos < 0


@dataclass(frozen=True, slots=True)
class Account:
    """An account, which pays. `markup_bps` and `rates` override those of its plan; None means the
    plan's.
    """

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
