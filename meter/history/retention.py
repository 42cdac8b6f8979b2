"""Keeps history in months: makes those to come, and drops those that are kept no longer.

Ended keys, audit lines and conflicts are not in months. Old ones are deleted in small batches, so
that no statement holds many rows.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.clock import Clock
from meter.errors import InvalidRequest, StoreUnavailable
from meter.history.month_store import HistoryStore, Month
from meter.process.periodic import periodic

MONTHS_AHEAD: Final = 3
LEAST_RETENTION_MONTHS: Final = 2
LEAST_RECORD_DAYS: Final = 90
# Records that are deleted by one statement, and the statements of one hour.
FORGOTTEN_AT_ONCE: Final = 1_000
MOST_BATCHES: Final = 100
EVERY_S: Final = 3600.0
RETRY_S: Final = 60.0
USAGE: Final = "usage"
LEDGER: Final = "ledger"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """The number of whole past months that stay in detail; None keeps all.

    `record_days` is how long ended keys, audit lines and conflicts stay. Raises InvalidRequest for
    less than two months or 90 days, and for a ledger that goes before its usage.
    """

    usage_months: int | None = None
    ledger_months: int | None = None
    record_days: int | None = None

    def __post_init__(self) -> None:
        named = [months for months in (self.usage_months, self.ledger_months) if months is not None]
        if any(months < LEAST_RETENTION_MONTHS for months in named):
            raise InvalidRequest(f"history is kept for {LEAST_RETENTION_MONTHS} months at least")
        if self.record_days is not None and self.record_days < LEAST_RECORD_DAYS:
            raise InvalidRequest(f"records are kept for {LEAST_RECORD_DAYS} days at least")
        if self.ledger_months is not None and (
            self.usage_months is None or self.usage_months > self.ledger_months
        ):
            raise InvalidRequest(
                "TOLLKEEPER_LEDGER_RETENTION_MONTHS must not be less than "
                "TOLLKEEPER_USAGE_RETENTION_MONTHS, and needs it"
            )

    def to_drop(self, months: list[Month], today: date) -> list[Month]:
        """Of these months, those that are over, oldest first; usage before the ledger."""
        kept = {USAGE: self.usage_months, LEDGER: self.ledger_months}
        over = [
            one
            for one in months
            if one.is_kept
            and (retained := kept.get(one.kind)) is not None
            and one.month < months_before(today, retained)
        ]
        return sorted(over, key=lambda one: (one.kind != USAGE, one.month))


def months_before(day: date, months: int) -> date:
    """The first day of the month so many months before the one of this day."""
    number = day.year * 12 + day.month - 1 - months
    return date(number // 12, number % 12 + 1, 1)


class History:
    """The periodic task; several meters may have it at once."""

    def __init__(
        self, store: HistoryStore, retention: Retention, registry: CollectorRegistry, clock: Clock
    ) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._kept = Gauge(
            "tollkeeper_history_months",
            "Months of history kept in detail, those made in advance included.",
            ["kind"],
            registry=registry,
        )
        self._dropped = Counter(
            "tollkeeper_history_months_dropped",
            "Months of which only sealed totals were left by this meter.",
            ["kind"],
            registry=registry,
        )
        self._forgotten = Counter(
            "tollkeeper_records_forgotten",
            "Ended keys, audit lines and conflicts that this meter deleted for their age.",
            registry=registry,
        )
        self._waits = Gauge(
            "tollkeeper_history_waits_for_sinks",
            "1 while a month of usage is kept for longer because a sink did not take all of it.",
            registry=registry,
        )
        self._failures = Counter(
            "tollkeeper_history_failures",
            "Times that history could not be looked after; tried again.",
            registry=registry,
        )

    async def run(self) -> None:
        """Look after the months at once and then every hour, until cancelled.

        No fault here ends the process: requests need no new month for weeks, and settling must go
        on meanwhile.
        """
        await periodic(
            "history",
            self._step,
            EVERY_S,
            RETRY_S,
            (StoreUnavailable,),
            on_outage=self._count_failure,
        )

    async def _step(self) -> float | None:
        try:
            await self.tend()
        except StoreUnavailable:
            raise
        except Exception as error:
            self._count_failure(error)
            _log.exception("history_failed", retry_in_s=RETRY_S)
            return RETRY_S
        return None

    def _count_failure(self, _: Exception) -> None:
        self._failures.inc()

    async def tend(self) -> list[Month]:
        """Make what is missing and drop what is over; returns what was dropped.

        Raises StoreUnavailable.
        """
        await self._store.prepare(MONTHS_AHEAD)
        if self._retention.record_days is not None:
            for _ in range(MOST_BATCHES):
                forgotten = await self._store.forget_records(
                    self._retention.record_days, FORGOTTEN_AT_ONCE
                )
                self._forgotten.inc(forgotten)
                if not forgotten:
                    break
        dropped = []
        over = self._retention.to_drop(await self._store.list_months(), self._clock.now().date())
        kept = False
        for month in over:
            if month.kind == USAGE:
                # What a sink did not take would be lost to it, and so would the months after it.
                behind = [] if kept else await self._store.list_sinks_behind(month.month)
                if behind:
                    kept = True
                    _log.error(
                        "history_month_kept_for_sinks",
                        month=month.month.isoformat()[:7],
                        sinks=behind,
                    )
                if kept:
                    continue
            # Another meter may have dropped it meanwhile.
            if await self._store.drop_month(month.kind, month.month):
                self._dropped.labels(month.kind).inc()
                _log.info(
                    "history_month_dropped", kind=month.kind, month=month.month.isoformat()[:7]
                )
                dropped.append(month)
        self._waits.set(kept)
        months = await self._store.list_months()
        for kind in (USAGE, LEDGER):
            self._kept.labels(kind).set(sum(one.is_kept and one.kind == kind for one in months))
        return dropped
