"""Compares each day with Stripe's balance in the night after it, and days that were missed."""

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from meter.clock import Clock
from meter.errors import InvalidRequest, Outage
from meter.payments.metrics import PaymentMetrics
from meter.payments.nightly.comparison import (
    CHARGE,
    BookedRow,
    DayReport,
    Difference,
    cause_of,
    compare,
    missing_days,
    read_stripe,
    stray,
)
from meter.payments.nightly.comparison_store import Comparison, ComparisonStore
from meter.payments.payment_store import ReversalKind
from meter.payments.stripe_facts import PaymentState, ReversalFacts, StripeRefused
from meter.process.periodic import periodic

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway

LOOK_EVERY_S: Final = 600.0
FIRST_LOOK_AFTER_S: Final = 60.0
RETRY_S: Final = 60.0
MOST_RETRY_S: Final = 3_600.0
# By then the sweep has brought what the webhook missed at the end of the day.
AFTER_MIDNIGHT: Final = timedelta(hours=2)
MOST_DAYS_BACK: Final = 31
# Of two days; more are not compared, and the report says so.
MOST_MOVEMENTS: Final = 200_000
# Rows of ours that are asked for one by one, because no movement of the two days matches them.
MOST_LOOKED_UP: Final = 1_000
DAY: Final = timedelta(days=1)

_log = structlog.get_logger(__name__)


class TooManyMovements(InvalidRequest):
    """A day with more movements at Stripe than one comparison reads."""


class NightlyComparison:
    """The work in the background that compares days. Each is compared once by all meters."""

    def __init__(
        self,
        gateway: "StripeGateway",
        store: ComparisonStore,
        clock: Clock,
        metrics: PaymentMetrics,
    ) -> None:
        self._gateway = gateway
        self._store = store
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> NoReturn:
        """Compare days that are over until cancelled, through outages of Postgres and Stripe."""
        await periodic(
            "stripe_comparison",
            self.step,
            LOOK_EVERY_S,
            RETRY_S,
            (Outage, StripeRefused),
            first_after_s=FIRST_LOOK_AFTER_S,
            most_retry_s=MOST_RETRY_S,
        )

    async def step(self) -> None:
        """Compare the days that are due, the oldest first. Raises Outage and StripeRefused."""
        is_live = self._gateway.is_live
        last = (self._clock.now() - AFTER_MIDNIGHT).date() - DAY
        first, compared = await self._store.compared_days(is_live, last - MOST_DAYS_BACK * DAY)
        due, too_old = missing_days(first, compared, last, MOST_DAYS_BACK)
        if too_old and due:
            _log.error("stripe_days_never_compared", days=too_old, most=MOST_DAYS_BACK)
        for day in due:
            if await self._store.take(is_live, day, again=False):
                try:
                    await self._compare(day)
                except TooManyMovements as error:
                    _log.error("stripe_day_not_compared", day=day.isoformat(), reason=str(error))
        await self.show()

    async def show(self) -> None:
        """Show the figures of recent days in the metrics, whichever meter compared them."""
        since = self._clock.now().date() - MOST_DAYS_BACK * DAY
        found = await self._store.measure(self._gateway.is_live, since)
        self._metrics.comparison_differences.set(found.differences)
        if found.last_day is not None:
            self._metrics.compared_day.set(_start(found.last_day).timestamp())

    async def compare_again(self, day: date) -> Comparison:
        """Compare one day now. Raises InvalidRequest for a day that is not over, ComparisonRuns."""
        if _start(day + DAY) > self._clock.now():
            raise InvalidRequest(f"{day.isoformat()} (UTC) is not over yet: compare an earlier day")
        await self._store.take(self._gateway.is_live, day, again=True)
        compared = await self._compare(day)
        await self.show()
        return compared

    async def _compare(self, day: date) -> Comparison:
        is_live = self._gateway.is_live
        try:
            compared = await self._store.save(is_live, day, await self._report(day))
        except BaseException:
            await self._store.release(is_live, day)
            raise
        _log.info("stripe_day_compared", day=day.isoformat(), is_ok=compared.report.is_ok)
        if not compared.report.is_ok:
            _log.error(
                "stripe_day_differs",
                day=day.isoformat(),
                differences=compared.report.difference_count,
                first=[one.cause for one in compared.report.differences[:10]],
            )
        return compared

    async def _report(self, day: date) -> DayReport:
        is_live, since = self._gateway.is_live, _start(day)
        until = since + DAY
        # The day before as well: a posting may come minutes after its money, across midnight.
        movements = await self._gateway.list_balance(since - DAY, until, MOST_MOVEMENTS + 1)
        if len(movements) > MOST_MOVEMENTS:
            raise TooManyMovements(
                f"Stripe moved money more than {MOST_MOVEMENTS} times in two days: "
                "compare with Stripe's own reports"
            )
        of_day = [one for one in movements if one.created_at >= since]
        side = read_stripe(of_day)
        booked = await self._store.find_booked(is_live, side.totals)
        unbooked = [one for cause, one in side.totals.items() if cause not in booked]
        ours = await self._store.find_ours(
            is_live,
            [one.payment_id for one in unbooked if one.payment_id is not None],
            [one.purchase_id for one in unbooked if one.purchase_id is not None],
            # The charge of a subscription names no purchase, but always its customer.
            [one.customer_id for one in unbooked if one.customer_id is not None],
        )
        rows = await self._store.list_booked_in(is_live, since, until, MOST_MOVEMENTS)
        seen = {cause_of(one) for one in movements}
        elsewhere = [row for row in rows if row.cause not in seen]
        strays = await self._look_up(elsewhere)
        of_other_days = sum(row.cause not in side.totals for row in rows) - len(strays)
        return compare(side, booked, ours, strays, of_other_days)

    async def _look_up(self, rows: list[BookedRow]) -> list[Difference]:
        """Return the rows of ours that Stripe does not confirm: a posting without its money."""
        strays = [
            stray(row, f"not looked up: more than {MOST_LOOKED_UP} postings are of older money")
            for row in rows[MOST_LOOKED_UP:]
        ]
        reversals: dict[str, ReversalFacts] = {}
        for row in rows[:MOST_LOOKED_UP]:
            if row.kind == CHARGE:
                facts = await self._gateway.find_payment(row.payment_id)
                is_there = (
                    facts is not None
                    and facts.state is PaymentState.SUCCEEDED
                    and facts.received_cents == row.cents
                )
            else:
                if row.payment_id not in reversals:
                    found = await self._gateway.list_reversals(row.payment_id)
                    reversals = {row.payment_id: found}
                is_there = (row.cause, row.cents) in _confirmed(reversals[row.payment_id])
            if not is_there:
                strays.append(stray(row, "in the books, and Stripe has moved no such money"))
        return strays


def _confirmed(found: ReversalFacts) -> set[tuple[str, int]]:
    """Return the causes and cents of the rows that follow from refunds and disputes."""
    causes = {(f"{one.id}:{ReversalKind.REFUND.value}", one.cents) for one in found.refunds}
    causes |= {
        (f"{one.id}:{ReversalKind.REFUND_FAILED.value}", one.cents)
        for one in found.refunds
        if one.has_failed
    }
    for one in found.disputes:
        causes.add((f"{one.id}:{ReversalKind.DISPUTE_WITHDRAWN.value}", one.withdrawn_cents))
        causes.add((f"{one.id}:{ReversalKind.DISPUTE_REINSTATED.value}", one.reinstated_cents))
    return causes


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
