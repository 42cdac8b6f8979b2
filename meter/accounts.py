"""Accounts: who pays. One balance each."""

from dataclasses import dataclass
from datetime import datetime


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
    """Who pays. `markup_bps` is the account's own, or None where its plan's applies."""

    id: str
    email: str
    name: str | None
    plan_id: str
    markup_bps: int | None
    is_suspended: bool
    funds: Funds
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """Terms shared by many accounts. None for the limit means that there is none."""

    id: str
    name: str
    markup_bps: int
    requests_per_minute: int | None


@dataclass(frozen=True, slots=True)
class Credential:
    """An API key as lists show it: everything but the secret, which nobody has any more."""

    id: str
    account_id: str
    name: str
    prefix: str
    allowed_models: tuple[str, ...] | None
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: the identity behind a credential, with the terms that apply to its requests."""

    credential_id: str
    account_id: str
    allowed_models: frozenset[str] | None
    markup_bps: int
    requests_per_minute: int | None
    is_suspended: bool
