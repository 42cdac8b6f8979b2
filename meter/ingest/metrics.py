"""The counters of the ingest."""

import collections

from prometheus_client import CollectorRegistry, Counter, Histogram

from meter.holds.hold import HoldState
from meter.settlement.booking import BookingKind
from meter.settlement.changes import SettlementChanges


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
            "What arrived for holds: settled, released, expired, unknown, duplicate, conflict, or"
            " parked because a row is locked.",
            ["outcome"],
            registry=registry,
        )
        self.unknown = Counter(
            "tollkeeper_unknown_endings",
            "Requests whose log entry could not settle them, by the reason: no_usage, zero_cost,"
            " no_cost (a cost is missing or malformed), cost_in_record (a stream that has none by"
            " design), contradiction, failed.",
            ["reason"],
            registry=registry,
        )
        self.repeats = Counter(
            "tollkeeper_access_log_repeats",
            "Endings that came again unchanged and were passed over without asking Postgres.",
            registry=registry,
        )
        self.bookings = Counter(
            "tollkeeper_bookings",
            "Usage records by kind (settlement, late, provisional, correction) and source.",
            ["kind", "source"],
            registry=registry,
        )
        self.excess = Counter(
            "tollkeeper_settlements_with_excess",
            "Bookings whose charge was above what was held.",
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

    def count(self, changes: SettlementChanges) -> None:
        """Count the changes of one committed batch."""
        states = collections.Counter(ending.state for ending in changes.endings)
        outcomes = {
            "settled": states[HoldState.SETTLED] + len(changes.ordinary),
            "released": states[HoldState.RELEASED],
            "expired": states[HoldState.EXPIRED],
            "unknown": len(changes.unknown),
            "conflict": len(changes.conflicts),
            "duplicate": changes.duplicates,
            "parked": len(changes.parked),
        }
        for outcome, number in outcomes.items():
            self.endings.labels(outcome).inc(number)
        for _, reason in changes.unknown:
            self.unknown.labels(reason.value).inc()
        for log, number in collections.Counter(changes.ordinary.values()).items():
            self.bookings.labels(BookingKind.SETTLEMENT.value, log.value).inc(number)
        for booking in changes.bookings:
            source = booking.observation.source.value
            self.bookings.labels(booking.kind.value, source).inc()
            self.excess.inc(booking.excess_picos > 0)
