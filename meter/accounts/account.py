"""Accounts: who pays, one balance each; and the credentials that act for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from meter.limits.limits import NO_RATES, Rates
from meter.scopes import DEFAULT_SCOPES, Scope

Network = IPv4Network | IPv6Network


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


class CredentialKind(StrEnum):
    """What may act for an account: see `credentials` in the migrations."""

    KEY = "key"
    IDENTITY = "identity"
    CERTIFICATE = "certificate"
    ISSUED = "issued"


@dataclass(frozen=True, slots=True)
class Budgets:
    """The most that a key may spend, in pico-dollars; periods of UTC, weeks from Monday."""

    day_picos: int | None = None
    week_picos: int | None = None
    month_picos: int | None = None
    total_picos: int | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as lists show it: everything but the secret, which nobody has any more.

    `previous_ends_at` is when the secret before the present one ends, while one is being rotated.
    """

    id: str
    kind: CredentialKind
    account_id: str
    name: str
    prefix: str | None
    scopes: frozenset[Scope]
    allowed_models: tuple[str, ...] | None
    allowed_addresses: tuple[str, ...] | None
    rates: Rates
    budgets: Budgets
    tags: Mapping[str, str]
    expires_at: datetime | None
    suspended_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    created_by: str
    last_used_at: datetime | None = None
    previous_ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: the identity behind a key, a JWT or a certificate, with the terms that apply.

    `model_lists` must each allow a model; none of them means every model. `networks` is where
    requests may come from; None means everywhere. `ends_at` is when the first of credential,
    secret, pass and JWT ends. `pass_id` is the `jti` of a JWT of ours.
    """

    credential_id: str
    account_id: str
    markup_bps: int
    is_suspended: bool = False
    plan_id: str = "standard"
    kind: CredentialKind = CredentialKind.KEY
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    model_lists: tuple[frozenset[str], ...] = ()
    networks: tuple[Network, ...] | None = None
    ends_at: datetime | None = None
    key_rates: Rates = NO_RATES
    account_rates: Rates = NO_RATES
    pass_id: str | None = None
