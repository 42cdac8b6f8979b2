"""The parts by which one process sells credit, put together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from meter.audit.audit_store import AuditStore
from meter.clock import Clock
from meter.payments.auto_top_up import AutoTopUps
from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.event_store import EventStore
from meter.payments.event_worker import EventWorker
from meter.payments.fulfilment import Fulfilment
from meter.payments.go_live import GoLive
from meter.payments.go_live_store import GoLiveStore
from meter.payments.metrics import PaymentMetrics
from meter.payments.mode import StripeMode
from meter.payments.nightly.comparison_store import ComparisonStore
from meter.payments.nightly.run import NightlyComparison
from meter.payments.payment_store import PaymentStore
from meter.payments.purchase_store import PurchaseStore
from meter.payments.selling import Selling
from meter.payments.subscriptions.following import SubscriptionFollower
from meter.payments.subscriptions.subscribing import Subscribing
from meter.payments.subscriptions.subscription_store import SubscriptionStore
from meter.payments.sweep import PaymentSweep
from meter.plans.plan_store import PlanStore
from meter.postgres.pool import PostgresPool

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway


@dataclass(frozen=True, slots=True)
class Payments:
    """The parts by which credit is sold. The gateway must be closed at the end."""

    gateway: "StripeGateway"
    purchases: PurchaseStore
    events: EventStore
    fulfilment: Fulfilment
    selling: Selling
    go_live: GoLive
    subscribing: Subscribing
    subscriptions: SubscriptionFollower
    worker: EventWorker
    sweep: PaymentSweep
    auto_top_ups: AutoTopUps
    nightly: NightlyComparison
    metrics: PaymentMetrics


def make_payments(
    mode: StripeMode, pool: PostgresPool, clock: Clock, registry: CollectorRegistry
) -> Payments:
    """Return the parts by which credit is sold in this mode."""
    # Here, because Stripe's library takes half a second and many megabytes where nothing is sold.
    from meter.payments.stripe_gateway import StripeGateway
    from meter.payments.subscriptions.stripe_subscriptions import StripeSubscriptions

    gateway, metrics = StripeGateway(mode), PaymentMetrics(registry)
    purchases, payments, events = PurchaseStore(pool), PaymentStore(pool), EventStore(pool)
    go_lives, audit = GoLiveStore(pool), AuditStore(pool)
    stripe, store = StripeSubscriptions(gateway), SubscriptionStore(pool)
    follower = SubscriptionFollower(stripe, store, purchases, metrics, mode.is_live)
    fulfilment = Fulfilment(gateway, purchases, payments, metrics, follower)
    selling = Selling(gateway, purchases, payments, fulfilment, audit, go_lives, mode.return_base)
    subscribing = Subscribing(
        stripe, store, PlanStore(pool), purchases, selling, follower, audit, mode.is_live
    )
    worker = EventWorker(events, fulfilment, gateway, metrics)
    return Payments(
        gateway=gateway,
        purchases=purchases,
        events=events,
        fulfilment=fulfilment,
        selling=selling,
        go_live=GoLive(
            gateway,
            go_lives,
            payments,
            selling,
            mode.return_base,
            subscribing.find_price_differences,
        ),
        subscribing=subscribing,
        subscriptions=follower,
        worker=worker,
        sweep=PaymentSweep(
            gateway, events, purchases, fulfilment, worker, clock, metrics, follower
        ),
        auto_top_ups=AutoTopUps(
            gateway, AutoTopUpStore(pool), purchases, fulfilment, selling, clock, metrics
        ),
        nightly=NightlyComparison(gateway, ComparisonStore(pool), clock, metrics),
        metrics=metrics,
    )
