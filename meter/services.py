"""Makes the services and stores that the API and the console use."""

from dataclasses import dataclass

from meter.accounts.account_store import AccountStore
from meter.audit.audit_store import AuditStore
from meter.clock import Clock
from meter.history.month_store import HistoryStore
from meter.holds.live_hold_store import LiveHoldStore
from meter.identity.credential_resolver import CredentialResolver, Verifier
from meter.identity.identity_store import IdentityStore
from meter.identity.issuer_store import PostgresIssuers
from meter.identity.keys.key_service import KeyService
from meter.identity.keys.key_store import KeyStore
from meter.identity.keys.key_text import Pepper
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
from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.coupons import Coupons
from meter.payments.event_store import EventStore
from meter.payments.nightly.comparison_store import ComparisonStore
from meter.payments.payment_store import PaymentStore
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
from meter.reconciliation.reconciler import Reconciler
from meter.routing.alias_store import AliasStore
from meter.routing.route_store import RouteStore
from meter.routing.table_store import RoutingStore
from meter.settlement.review_store import SettlementReviewStore
from meter.usage.generation_store import GenerationStore
from meter.usage.usage_store import UsageStore


@dataclass(frozen=True, slots=True)
class Issuing:
    """The means to issue passes: our own issuer, its signing keys; and to read other issuers."""

    own: OwnIssuer
    keys: SigningKeys
    documents: IssuerDocuments


class Services:
    """The stores and services of one process. They share one pool and hold no other resource."""

    def __init__(
        self,
        pool: PostgresPool,
        pepper: Pepper,
        clock: Clock,
        issuing: Issuing,
        jwts: Verifier,
        provider_keys: PostgresProviderKeys,
        providers: Providers,
        reconciler: Reconciler,
    ) -> None:
        self.pool = pool
        self.pepper = pepper
        self.clock = clock
        self.accounts = AccountStore(pool)
        self.plans = PlanStore(pool)
        self.routing = RoutingStore(pool)
        self.routes = RouteStore(pool)
        self.aliases = AliasStore(pool)
        self.limit_rules = LimitRuleStore(pool)
        self.ledger = LedgerStore(pool)
        self.lots = LotStore(pool)
        self.verification = VerificationStore(pool)
        self.history = HistoryStore(pool)
        self.holds = LiveHoldStore(pool)
        self.usage = UsageStore(pool)
        self.generations = GenerationStore(pool, clock)
        self.reviews = SettlementReviewStore(pool)
        self.reconciler = reconciler
        self.audit = AuditStore(pool)
        self.catalogue = PostgresCatalogue(pool)
        self.doubts = DoubtStore(pool)
        self.write_offs = WriteOffStore(pool)
        self.raised_estimates = RaisedEstimateStore(pool)
        self.provider_keys = provider_keys
        self.providers = providers
        self.own_keys = OwnKeyService(pool, provider_keys, providers.store)
        self.purchases = PurchaseStore(pool)
        self.payments = PaymentStore(pool)
        self.subscriptions = SubscriptionStore(pool)
        self.stripe_events = EventStore(pool)
        self.stripe_comparisons = ComparisonStore(pool)
        self.auto_top_ups = AutoTopUpStore(pool)
        self.coupons = Coupons(pool, pepper)
        # Identity: callers, and the credentials of accounts.
        self.principals = PostgresPrincipals(pool)
        self.identifier = CredentialResolver(pepper, self.principals, jwts)
        self.operators = OperatorStore(pool)
        self.key_store = KeyStore(pool)
        self.keys = KeyService(self.key_store, pepper)
        self.identities = IdentityStore(pool)
        self.passes = PassStore(pool)
        self.pass_issuer = PassIssuer(issuing.own, issuing.keys, self.passes, clock)
        self.own_issuer = issuing.own
        self.signing_keys = issuing.keys
        self.published_keys = PublishedKeys(pool, clock)
        self.issuers = PostgresIssuers(pool)
        self.issuer_documents = issuing.documents
