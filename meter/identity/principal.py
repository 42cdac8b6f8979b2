"""The principal: the authenticated identity that acts, its credential and its limits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from meter.limits.limits import NO_RATES, Rates
from meter.network import Network
from meter.scopes import DEFAULT_SCOPES, Scope

if TYPE_CHECKING:
    from meter.jwts.verifying import VerifiedIdentity


class CredentialKind(StrEnum):
    """The kind of a credential.

    `key`: an API key. `identity`: a subject of an issuer of JWTs. `certificate`: a client
    certificate. `issued`: acts for an account on trusted routes, without a secret.
    """

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
    """A credential without its secret, which is not stored.

    `previous_ends_at` is the end of the previous secret after a rotation; None without one.
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
    """The identity that a key, a JWT or a certificate authenticates, with the terms that apply.

    A model must be allowed by each of `model_lists`; an empty tuple allows every model. Requests
    may come from `networks`; None allows every address. `ends_at` is the earliest end of
    credential, secret, pass and JWT. `pass_id` is the `jti` of a pass.
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


class Principals(Protocol):
    """Where the identity behind a credential is looked up.

    None for what is unknown, revoked, suspended, expired or foreign, all alike.
    """

    async def find_by_secret(self, digest: bytes) -> Principal | None:
        """Behind an API key, by the keyed digest of its text."""
        ...

    async def find_by_pass(self, pass_id: str) -> Principal | None:
        """Behind a JWT of ours, by its `jti`."""
        ...

    async def find_by_identity(self, identity: "VerifiedIdentity") -> Principal | None:
        """Behind a JWT of another issuer; makes the account at first sight where that is allowed.

        Its scopes are those of the credential; the JWT's own go before them.
        """
        ...

    async def find_by_certificate(self, name: str) -> Principal | None:
        """Behind a client certificate, by its subject alternative name."""
        ...

    async def find_issued(self, account_id: str) -> Principal | None:
        """What acts for an account that gave no credential itself: for trusted routes only."""
        ...


class CredentialUses(Protocol):
    """The store of the times at which credentials were last used."""

    async def note(self, latest: Mapping[str, datetime]) -> None:
        """Store the latest use of each credential; an older time changes nothing."""
        ...
