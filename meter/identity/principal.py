"""The principal: the authenticated identity that acts, its credential and its limits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from meter.jwts.verified import VerifiedIdentity, VerifiedPass
from meter.limits.limits import NO_RATES, Rates
from meter.money import own_key_markup
from meter.network import Network
from meter.scopes import DEFAULT_SCOPES, Scope
from meter.values import light_value


class CredentialKind(StrEnum):
    """The kind of a credential.

    `key`: an API key. `identity`: a subject of an issuer of JWTs. `certificate`: a client
    certificate. `account`: acts for an account on trusted routes, without a secret.
    """

    KEY = "key"
    IDENTITY = "identity"
    CERTIFICATE = "certificate"
    ACCOUNT = "issued"

    @property
    def word(self) -> str:
        """The word by which messages to a caller name a credential of this kind."""
        return _WORDS[self]


class OwnKeyMode(StrEnum):
    """The use that requests make of the account's own keys of providers.

    `prefer`: with an own key where there is one for the model, else with our key, for credit.
    `only`: with an own key or not at all. `never`: with our key.
    """

    PREFER = "prefer"
    ONLY = "only"
    NEVER = "never"


@light_value
class OwnKeyTerms:
    """The terms by which requests of an account, or of an API key, use the account's own keys.

    With `may_fall_back_to_credit` they go out with our key, for credit, while the provider refuses
    the own one. `fee_bps` is the part of the cost that is charged for the use of an own key.
    """

    mode: OwnKeyMode = OwnKeyMode.PREFER
    may_fall_back_to_credit: bool = False
    fee_bps: int = 0


DEFAULT_OWN_KEY_TERMS: Final = OwnKeyTerms()

_WORDS: Final = {
    CredentialKind.KEY: "API key",
    CredentialKind.IDENTITY: "JWT",
    CredentialKind.CERTIFICATE: "client certificate",
    CredentialKind.ACCOUNT: "account",
}


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

    `own_key_mode` is how it uses the account's provider keys; None is as the account has it.
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
    own_key_mode: OwnKeyMode | None = None
    previous_ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity that a key, a JWT or a certificate authenticates, with the terms that apply.

    A model must be allowed by each of `model_lists`; an empty tuple allows every model. Requests
    may come from `networks`; None allows every address. `ends_at` is the earliest end of
    credential, secret, pass and JWT. `pass_id` is the `jti` of a pass. `has_budget` tells whether
    the key or the pass has one; the budget itself is known only to the books. `has_own_keys` tells
    whether the account has stored a key of a provider: others need not be asked about.
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
    has_budget: bool = False
    has_own_keys: bool = False
    own_key_terms: OwnKeyTerms = DEFAULT_OWN_KEY_TERMS

    @property
    def own_key_markup_bps(self) -> int:
        """Return the markup of requests with an own key, by which their charge is the fee."""
        return own_key_markup(self.own_key_terms.fee_bps)

    @property
    def uses_own_keys(self) -> bool:
        """Return whether requests go out with an own key where one serves the model."""
        return self.has_own_keys and self.own_key_terms.mode is not OwnKeyMode.NEVER

    @property
    def presented(self) -> str:
        """The kind of credential that was presented, as messages to its holder name it."""
        return self.kind.word if self.pass_id is None else "pass"


@light_value
class ByKey:
    """An API key, by the keyed digest of its text."""

    digest: bytes = field(repr=False)


@light_value
class ByPass:
    """A verified JWT of our own, by its `jti`."""

    verified: VerifiedPass


@dataclass(frozen=True, slots=True)
class ByIdentity:
    """A verified JWT of another issuer."""

    verified: VerifiedIdentity


@dataclass(frozen=True, slots=True)
class ByCertificate:
    """A verified client certificate, by its subject alternative name."""

    name: str


@dataclass(frozen=True, slots=True)
class ByAccount:
    """The account that a trusted route names, without a credential of the account itself."""

    account_id: str


# What a request presents, in the form in which a principal is looked up.
Presented = ByKey | ByPass | ByIdentity | ByCertificate | ByAccount


class Principals(Protocol):
    """Looks up principals: in Postgres (`principal_store.py`), or in the cache of authz."""

    async def find(self, presented: Presented) -> Principal | None:
        """Return the principal that a credential or a trusted route stands for.

        None for a credential that is unknown, revoked, suspended, expired or foreign, all alike.
        A look-up by identity or account may first create the credential's row, and by identity
        the account, where that is allowed. The expiry and the scopes that a JWT itself states are
        not applied here: CredentialResolver.find does that.

        Raises StoreUnavailable when Postgres does not answer.
        """
        ...
