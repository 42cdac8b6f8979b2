"""Metrics of payments."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class PaymentMetrics:
    """Counters and gauges of payments and of Stripe's events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.credited_picos = Counter(
            "tollkeeper_payments_credited_picos",
            "Credit that payments became, in pico-dollars.",
            registry=registry,
        )
        self.reversed_picos = Counter(
            "tollkeeper_payments_reversed_picos",
            "Credit that refunds and disputes took back or gave back, in pico-dollars, by kind.",
            ("kind",),
            registry=registry,
        )
        self.events = Counter(
            "tollkeeper_stripe_events",
            "Events of Stripe by type of arrival and outcome.",
            ("source", "outcome"),
            registry=registry,
        )
        self.auto_top_ups = Counter(
            "tollkeeper_auto_top_ups",
            "Automatic top-ups by outcome (charged, paused).",
            ("outcome",),
            registry=registry,
        )
        self.unknown_prices = Counter(
            "tollkeeper_stripe_unknown_prices",
            "Paid invoices with a price that no plan has; nothing was credited.",
            registry=registry,
        )
        self.oldest_waiting_s = Gauge(
            "tollkeeper_stripe_oldest_waiting_event_seconds",
            "The age of the oldest event of Stripe that was not followed yet.",
            registry=registry,
        )
        self.parked = Gauge(
            "tollkeeper_stripe_parked_events",
            "Events of Stripe that need an administrator.",
            registry=registry,
        )
        self.comparison_differences = Gauge(
            "tollkeeper_stripe_comparison_differences",
            "Movements of the last 31 days that differ between Stripe's balance and the books.",
            registry=registry,
        )
        self.compared_day = Gauge(
            "tollkeeper_stripe_compared_day_timestamp_seconds",
            "The beginning of the last day that was compared with Stripe's balance.",
            registry=registry,
        )
        self.last_sweep = Gauge(
            "tollkeeper_stripe_last_sweep_timestamp_seconds",
            "When the sweep last listed what the webhook may have missed.",
            registry=registry,
        )
