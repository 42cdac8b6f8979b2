"""The API's dependencies, and the typed parameters with which a route asks for one of them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from meter.accounts.account_store import AccountStore
from meter.api.cursors import Cursors
from meter.audit.audit_store import AuditStore
from meter.clock import Clock
from meter.errors import InvalidRequest
from meter.exports.export_stream import ExportStreams
from meter.exports.sinks import Sinks
from meter.exports.webhooks.webhook_store import WebhookStore
from meter.history.month_store import HistoryStore
from meter.holds.live_hold_store import LiveHoldStore
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.identity_store import IdentityStore
from meter.identity.issuer_store import PostgresIssuers
from meter.identity.keys.key_service import KeyService
from meter.identity.keys.key_store import KeyStore
from meter.identity.operator_store import OperatorStore
from meter.identity.pass_issuer import PassIssuer
from meter.identity.pass_store import PassStore
from meter.identity.principal_store import PostgresPrincipals
from meter.identity.signing_key_store import PublishedKeys, SigningKeys
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.passes import OwnIssuer
from meter.ledger.credit_store import LedgerStore
from meter.ledger.lots import LotStore
from meter.ledger.verification_store import VerificationStore
from meter.ledger.write_offs import WriteOffStore
from meter.limits.rule_store import LimitRuleStore
from meter.lookups.queue import LookupQueue
from meter.network import Network
from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.coupons import Coupons
from meter.payments.event_store import EventStore
from meter.payments.nightly.comparison_store import ComparisonStore
from meter.payments.payment_store import PaymentStore
from meter.payments.payments import Payments
from meter.payments.purchase_store import PurchaseStore
from meter.payments.subscriptions.subscription_store import SubscriptionStore
from meter.plans.plan_store import PlanStore
from meter.postgres.pool import PostgresPool
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.doubt_store import DoubtStore
from meter.pricing.raised_estimates import RaisedEstimateStore
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.own_keys import OwnKeyService
from meter.providers.providers import Providers
from meter.providers.report_tags import ReportTags
from meter.reconciliation.reconciler import Reconciler
from meter.routing.alias_store import AliasStore
from meter.routing.route_store import RouteStore
from meter.sealing import SecretText
from meter.services import Services
from meter.settlement.review_store import SettlementReviewStore
from meter.usage.generation_store import GenerationStore
from meter.usage.usage_store import UsageStore
from meter.xds.publisher import ClusterPublisher

MIN_REPORTS_TOKEN_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of one component, with a sentence about why it is not ready.

    A component that is not required is shown, but does not make the meter unready.
    """

    is_ready: bool
    reason: str | None = None
    is_required: bool = True


ReadinessProbe = Callable[[], Awaitable[Readiness]]


@dataclass(frozen=True, slots=True)
class ProviderReports:
    """The means to receive a provider's reports of finished generations.

    Raises InvalidRequest for a token that is short enough to be guessed.
    """

    token: SecretText
    tags: ReportTags
    generations: LookupQueue

    def __post_init__(self) -> None:
        if len(self.token.reveal()) < MIN_REPORTS_TOKEN_CHARS:
            raise InvalidRequest(
                f"the token of provider reports must have {MIN_REPORTS_TOKEN_CHARS} characters "
                "at least, so that nobody can guess it; set a longer one"
            )


@dataclass(frozen=True, slots=True)
class ApiDependencies:
    """The dependencies of the API.

    The probe `postgres` is added where `readiness` has none. Without `provider_reports` the
    route that receives them answers 404. Without `payments` no credit is sold.
    """

    services: Services
    registry: CollectorRegistry
    provider_base_url: str | None = None
    readiness: Mapping[str, ReadinessProbe] = field(default_factory=dict)
    provider_reports: ProviderReports | None = None
    payments: Payments | None = None
    # Without them no usage is sent to other systems, and their routes answer 404.
    sinks: Sinks | None = None
    # Without it accounts have no webhooks, and their routes answer 404.
    webhooks: WebhookStore | None = None
    # The clusters for Envoys that ask; without it, they get 404.
    clusters: ClusterPublisher | None = None
    # The proxies whose statement about the client's address is trusted.
    trusted_proxies: tuple[Network, ...] = ()


async def _dependencies(request: Request) -> ApiDependencies:
    dependencies: ApiDependencies = request.app.state.dependencies
    return dependencies


FromOutside = Annotated[ApiDependencies, Depends(_dependencies)]


def _provide(pick: Callable[[Services], object]) -> Any:
    # Async, because FastAPI runs a plain function in a thread.
    async def provide(outside: FromOutside) -> object:
        return pick(outside.services)

    return Depends(provide)


async def _cursors(request: Request) -> Cursors:
    cursors: Cursors = request.app.state.cursors
    return cursors


async def _exports(request: Request) -> ExportStreams:
    exports: ExportStreams = request.app.state.exports
    return exports


FromExports = Annotated[ExportStreams, Depends(_exports)]
FromCursors = Annotated[Cursors, Depends(_cursors)]
FromAccounts = Annotated[AccountStore, _provide(lambda services: services.accounts)]
FromAudit = Annotated[AuditStore, _provide(lambda services: services.audit)]
FromAliases = Annotated[AliasStore, _provide(lambda services: services.aliases)]
FromAutoTopUps = Annotated[AutoTopUpStore, _provide(lambda one: one.auto_top_ups)]
FromCatalogue = Annotated[PostgresCatalogue, _provide(lambda services: services.catalogue)]
FromDoubts = Annotated[DoubtStore, _provide(lambda services: services.doubts)]
FromCoupons = Annotated[Coupons, _provide(lambda services: services.coupons)]
FromClock = Annotated[Clock, _provide(lambda services: services.clock)]
FromHistory = Annotated[HistoryStore, _provide(lambda services: services.history)]
FromHolds = Annotated[LiveHoldStore, _provide(lambda services: services.holds)]
FromIdentifier = Annotated[CredentialResolver, _provide(lambda services: services.identifier)]
FromIdentities = Annotated[IdentityStore, _provide(lambda services: services.identities)]
FromIssuerDocuments = Annotated[IssuerDocuments, _provide(lambda one: one.issuer_documents)]
FromIssuers = Annotated[PostgresIssuers, _provide(lambda services: services.issuers)]
FromKeys = Annotated[KeyService, _provide(lambda services: services.keys)]
FromKeyStore = Annotated[KeyStore, _provide(lambda services: services.key_store)]
FromLedger = Annotated[LedgerStore, _provide(lambda services: services.ledger)]
FromLots = Annotated[LotStore, _provide(lambda services: services.lots)]
FromLimitRules = Annotated[LimitRuleStore, _provide(lambda services: services.limit_rules)]
FromOperators = Annotated[OperatorStore, _provide(lambda services: services.operators)]
FromOwnKeys = Annotated[OwnKeyService, _provide(lambda services: services.own_keys)]
FromOwnIssuer = Annotated[OwnIssuer, _provide(lambda services: services.own_issuer)]
FromPasses = Annotated[PassStore, _provide(lambda services: services.passes)]
FromPassIssuer = Annotated[PassIssuer, _provide(lambda services: services.pass_issuer)]
FromPaymentStore = Annotated[PaymentStore, _provide(lambda services: services.payments)]
FromPlans = Annotated[PlanStore, _provide(lambda services: services.plans)]
FromPool = Annotated[PostgresPool, _provide(lambda services: services.pool)]
FromPrincipals = Annotated[PostgresPrincipals, _provide(lambda services: services.principals)]
FromProviderKeys = Annotated[PostgresProviderKeys, _provide(lambda one: one.provider_keys)]
FromPurchases = Annotated[PurchaseStore, _provide(lambda services: services.purchases)]
FromProviders = Annotated[Providers, _provide(lambda services: services.providers)]
FromPublishedKeys = Annotated[PublishedKeys, _provide(lambda services: services.published_keys)]
FromRaisedEstimates = Annotated[
    RaisedEstimateStore, _provide(lambda services: services.raised_estimates)
]
FromReconciler = Annotated[Reconciler, _provide(lambda services: services.reconciler)]
FromReviews = Annotated[SettlementReviewStore, _provide(lambda services: services.reviews)]
FromRoutes = Annotated[RouteStore, _provide(lambda services: services.routes)]
FromSigningKeys = Annotated[SigningKeys, _provide(lambda services: services.signing_keys)]
FromStripeComparisons = Annotated[ComparisonStore, _provide(lambda one: one.stripe_comparisons)]
FromSubscriptions = Annotated[SubscriptionStore, _provide(lambda one: one.subscriptions)]
FromStripeEvents = Annotated[EventStore, _provide(lambda services: services.stripe_events)]
FromGenerations = Annotated[GenerationStore, _provide(lambda services: services.generations)]
FromUsage = Annotated[UsageStore, _provide(lambda services: services.usage)]
FromWriteOffs = Annotated[WriteOffStore, _provide(lambda services: services.write_offs)]
FromVerification = Annotated[VerificationStore, _provide(lambda services: services.verification)]
