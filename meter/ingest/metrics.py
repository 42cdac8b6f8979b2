"""What the ingest counts."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from meter.settlement_batch import BatchPlan


class IngestMetrics:
    """Counters of entries and endings, in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.entries = Counter(
            "tollkeeper_access_log_entries",
            "Access-log entries that named a hold.",
            registry=registry,
        )
        self.malformed = Counter(
            "tollkeeper_access_log_malformed",
            "Access-log messages that could not be read.",
            registry=registry,
        )
        self.endings = Counter(
            "tollkeeper_hold_endings",
            "What arrived for holds: settled, released, unknown, duplicate, conflict.",
            ["outcome"],
            registry=registry,
        )
        self.excess = Counter(
            "tollkeeper_settlements_with_excess",
            "Settlements whose charge was above the hold.",
            registry=registry,
        )
        self.failed = Counter(
            "tollkeeper_settlements_failed",
            "Observations that could not be settled; their holds stay open.",
            registry=registry,
        )
        self.retries = Counter(
            "tollkeeper_settlement_retries",
            "Batches that waited for Postgres.",
            registry=registry,
        )
        self.provider_refusals = Counter(
            "tollkeeper_provider_refusals",
            "Replies by which the provider refused our own credential or credit.",
            ["status"],
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "tollkeeper_settlement_batch_seconds",
            "Time to settle one batch.",
            registry=registry,
        )

    def count(self, plan: BatchPlan) -> None:
        """Count what a batch did."""
        outcomes = {
            "settled": len(plan.settlements),
            "released": len(plan.released),
            "unknown": len(plan.unknown),
            "conflict": len(plan.conflicts),
            "duplicate": plan.duplicates,
        }
        for outcome, number in outcomes.items():
            self.endings.labels(outcome).inc(number)
        self.excess.inc(sum(1 for each in plan.settlements if each.outcome.excess_picos))
