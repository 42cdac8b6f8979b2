"""What the API is made of, given to `create_app` and found again by every route."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from meter.accounts.account_store import AccountStore
from meter.accounts.plan_store import PlanStore
from meter.api.cursors import Cursors
from meter.audit.audit_store import AuditStore
from meter.audit.events import SYSTEM, Actor
from meter.clock import Clock
from meter.errors import InvalidRequest
from meter.history.month_store import HistoryStore
from meter.holds.live_hold_store import LiveHoldStore
from meter.identity.credential_resolver import Identifier, Verifier
from meter.identity.identity_store import IdentityStore
from meter.identity.issuer_store import PostgresIssuers
from meter.identity.keys.key_store import CredentialStore
from meter.identity.keys.key_text import Pepper
from meter.identity.operator_store import OperatorStore
from meter.identity.pass_issuer import PassDesk
from meter.identity.pass_store import PassStore
from meter.identity.principal_store import PostgresPrincipals
from meter.identity.signing_key_store import PublishedKeys, SigningKeys
from meter.jwts.fetching import DocumentSource
from meter.jwts.passes import OwnIssuer
from meter.jwts.verified import Verified
from meter.ledger.credit_store import LedgerStore
from meter.ledger.verification_store import VerificationStore
from meter.limits.rule_store import LimitRuleStore
from meter.lookups.queue import LookupQueue
from meter.network import Network
from meter.pricing.catalogue_store import ModelListing
from meter.providers.key_store import ProviderKeyListing
from meter.providers.report_tags import ReportTags
from meter.reconciliation.reconciler import NoProviderTotals, Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.sealing import SecretText
from meter.settlement.review_store import SettlementReviewStore
from meter.usage.usage_store import UsageStore

if TYPE_CHECKING:
    from meter.postgres.pool import PostgresPool


MIN_REPORTS_TOKEN_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether one component does its work, with a sentence why not.

    A component that is not required is shown, but does not make the meter unready.
    """

    is_ready: bool
    reason: str | None = None
    is_required: bool = True


ReadinessProbe = Callable[[], Awaitable[Readiness]]


class Listings(Protocol):
    """Where the catalogue for show comes from."""

    async def load_listings(self) -> list[ModelListing]:
        """All listed models with the price in force. Raises StoreUnavailable."""
        ...


class ProviderKeyRegister(Protocol):
    """Where provider keys are set and looked at."""

    async def set_key(
        self,
        provider: str,
        owner: str,
        plain: SecretText,
        may_replace_sealed: bool = False,
        actor: Actor = SYSTEM,
    ) -> int:
        """Seal and store a key; returns its version. Raises InvalidRequest, StoreUnavailable."""
        ...

    async def list_keys(self) -> list[ProviderKeyListing]:
        """Which keys are set; never the keys. Raises StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderReports:
    """What it takes to take a provider's reports of finished generations in.

    Raises InvalidRequest for a token that could be guessed.
    """

    token: SecretText
    tags: ReportTags
    generations: LookupQueue

    def __post_init__(self) -> None:
        if len(self.token.reveal()) < MIN_REPORTS_TOKEN_CHARS:
            raise InvalidRequest(
                f"the token of provider reports must have {MIN_REPORTS_TOKEN_CHARS} characters"
            )


class NoJwts:
    """Implements `meter.identity.credential_resolver.Verifier` where no JWT is believed."""

    async def verify(self, text: str) -> Verified | None:
        """None."""
        return None


@dataclass(frozen=True, slots=True)
class Issuing:
    """What it takes to issue passes, and to look at other issuers."""

    own: OwnIssuer
    keys: SigningKeys
    documents: DocumentSource


@dataclass(frozen=True, slots=True)
class ApiDependencies:
    """Everything from outside. The probe `postgres` is added where `readiness` has none.

    Without `provider_reports` they are switched off.
    """

    pool: "PostgresPool"
    pepper: Pepper
    clock: Clock
    listings: Listings
    provider_keys: ProviderKeyRegister
    registry: CollectorRegistry
    issuing: Issuing
    provider_base_url: str | None = None
    readiness: Mapping[str, ReadinessProbe] = field(default_factory=dict)
    provider_reports: ProviderReports | None = None
    # The one of the periodic task, where there is one: its metrics are in the registry.
    reconciler: Reconciler | None = None
    # Who believes JWTs; without it nobody does.
    jwts: Verifier = field(default_factory=NoJwts)
    # Whose word about the hop before them is believed.
    trusted_proxies: tuple[Network, ...] = ()


class ReportsAtWork:
    """How many reports of leaked keys are being answered: anybody may send them."""

    def __init__(self) -> None:
        self.count = 0


class Books:
    """The stores and services of one application."""

    def __init__(self, outside: ApiDependencies) -> None:
        pool = outside.pool
        self.outside = outside
        self.clock = outside.clock
        self.accounts = AccountStore(pool)
        self.credentials = CredentialStore(pool, outside.pepper)
        self.ledger = LedgerStore(pool)
        self.usage = UsageStore(pool)
        self.plans = PlanStore(pool)
        self.limit_rules = LimitRuleStore(pool)
        self.audit = AuditStore(pool)
        self.principals = PostgresPrincipals(pool)
        self.identifier = Identifier(outside.pepper, self.principals, outside.jwts)
        self.passes = PassStore(pool)
        self.pass_desk = PassDesk(
            outside.issuing.own, outside.issuing.keys, self.passes, outside.clock
        )
        self.published_keys = PublishedKeys(pool, outside.clock)
        self.issuers = PostgresIssuers(pool)
        self.identities = IdentityStore(pool)
        self.holds = LiveHoldStore(pool)
        self.operators = OperatorStore(pool)
        self.verification = VerificationStore(pool)
        self.history = HistoryStore(pool)
        self.oversight = SettlementReviewStore(pool)
        self.reconciler = outside.reconciler or Reconciler(
            ReconciliationStore(pool), NoProviderTotals(), outside.registry
        )
        self.cursors = Cursors(outside.pepper)
        self.reports_at_work = ReportsAtWork()
        # A verification reads everything; a second one at the same time waits.
        self.one_verification = asyncio.Lock()


def _books(request: Request) -> Books:
    books: Books = request.app.state.books
    return books


FromBooks = Annotated[Books, Depends(_books)]
