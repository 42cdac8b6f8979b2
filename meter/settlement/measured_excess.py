"""Raises the estimates of requests that proved to cost more than their holds.

Written apart from the transactions of settlements: no settlement waits for a row that all requests
of a model share. What a crash loses is seen again with the next excess.
"""

from datetime import datetime, timedelta
from typing import Final, NoReturn

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.errors import StoreUnavailable
from meter.money import BPS_PER_WHOLE
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.pricing.prices import MAX_FACTOR_BPS
from meter.process.periodic import periodic
from meter.settlement.booking import BookingKind
from meter.settlement.changes import SettlementChanges

_QUERIES: Final = queries("meter.settlement")
_RAISE_ESTIMATES: Final = _QUERIES["raise_estimates"]

WRITE_EVERY_S: Final = 1.0
RETRY_S: Final = 1.0
# Excesses that wait to be written; more of them say nothing new.
WAITING_LIMIT: Final = 1_000
# A raise has reached every authz after this time: their catalogues are no older.
IN_FORCE_AFTER: Final = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


class MeasuredExcesses:
    """Collects the excesses of committed settlements, and raises estimates once a second."""

    def __init__(self, pool: PostgresPool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._waiting: list[tuple[str, str, int, datetime]] = []
        self._raises = Counter(
            "tollkeeper_estimates_raised",
            "Times that the estimate of a class of requests was raised.",
            registry=registry,
        )

    def note(self, changes: SettlementChanges) -> None:
        """Add the excesses of a committed batch; never waits, and drops what has no room."""
        for booking in changes.bookings:
            if booking.kind is not BookingKind.SETTLEMENT or booking.excess_picos <= 0:
                continue
            if len(self._waiting) >= WAITING_LIMIT:
                return
            hold = booking.hold
            ratio_bps = -(-booking.charge_picos * BPS_PER_WHOLE // max(1, hold.amount_picos))
            self._waiting.append(
                (hold.model_id, hold.endpoint, min(ratio_bps, MAX_FACTOR_BPS), hold.placed_at)
            )

    async def run(self) -> NoReturn:
        """Write until cancelled, through outages of Postgres."""
        await periodic("measured_excess", self.write, WRITE_EVERY_S, RETRY_S, (StoreUnavailable,))

    async def write(self) -> None:
        """Raise the estimates. Raises StoreUnavailable, and then keeps what was collected."""
        if not self._waiting:
            return
        seen, self._waiting = self._waiting, []
        columns = [list(column) for column in zip(*seen, strict=True)]
        try:
            async with acquire(self._pool) as connection:
                raised = await connection.fetch(
                    _RAISE_ESTIMATES, *columns, IN_FORCE_AFTER, MAX_FACTOR_BPS
                )
        except StoreUnavailable:
            self._waiting = [*seen, *self._waiting][:WAITING_LIMIT]
            raise
        for row in raised:
            self._raises.inc()
            _log.error(
                "estimate_raised",
                model=row["model_id"],
                endpoint=row["endpoint"],
                factor=row["factor_bps"] / BPS_PER_WHOLE,
            )
