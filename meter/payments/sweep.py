"""Finds what the webhook missed: lists Stripe's events, and looks at purchases that stay open."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from meter.clock import Clock
from meter.errors import Outage
from meter.payments.event_store import KNOWN_EVENTS, EventStore
from meter.payments.event_worker import EventWorker
from meter.payments.fulfilment import Fulfilment
from meter.payments.metrics import PaymentMetrics
from meter.payments.purchase import PurchaseKind, PurchaseState
from meter.payments.purchase_store import PurchaseStore
from meter.payments.stripe_facts import StripeEvent, StripeRefused
from meter.payments.subscriptions.following import SubscriptionFollower
from meter.process.periodic import periodic

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway

SWEEP_EVERY_S: Final = 300.0
RETRY_S: Final = 30.0
# Events are listed again for so long: those with an earlier time may appear a little later.
OVERLAP: Final = timedelta(hours=1)
# More events in one step, of 20 types, and the step is made shorter.
EVENTS_AT_ONCE: Final = 500
LEAST_STEP: Final = timedelta(seconds=1)
# Stripe lists events of 30 days; an hour less, so that no boundary is met.
EVENTS_KEPT: Final = timedelta(days=30) - timedelta(hours=1)
UNSEEN_FOR: Final = timedelta(minutes=15)
PURCHASES_AT_ONCE: Final = 100
# A purchase without a session by then was never shown to its customer.
ABANDONED_AFTER: Final = timedelta(hours=1)

_log = structlog.get_logger(__name__)


class PaymentSweep:
    """The work in the background that looks for payments nobody told us about."""

    def __init__(
        self,
        gateway: "StripeGateway",
        events: EventStore,
        purchases: PurchaseStore,
        fulfilment: Fulfilment,
        worker: EventWorker,
        clock: Clock,
        metrics: PaymentMetrics,
        subscriptions: SubscriptionFollower,
    ) -> None:
        self._gateway = gateway
        self._events = events
        self._purchases = purchases
        self._fulfilment = fulfilment
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._subscriptions = subscriptions

    async def run(self) -> NoReturn:
        """Sweep at the start and at intervals until cancelled, through outages."""
        await periodic("stripe_sweep", self.sweep, SWEEP_EVERY_S, RETRY_S, (Outage,))

    async def sweep(self) -> None:
        """List missed events, and look at open purchases and ended periods. Raises Outage."""
        await self.list_events()
        await self.look_at_purchases(UNSEEN_FOR)
        await self._subscriptions.follow_overdue(self._clock.now())
        self._metrics.last_sweep.set(self._clock.now().timestamp())

    async def list_events(self) -> int:
        """Store the events that the webhook missed; return how many. Raises Outage.

        They are listed in steps of time, oldest first, and each step is noted when it is stored:
        an outage, or the end of this process, costs one step however many events there are.
        """
        now, is_live = self._clock.now(), self._gateway.is_live
        listed_up_to = await self._events.listed_up_to(is_live)
        oldest = now - EVENTS_KEPT
        since = oldest if listed_up_to is None else max(oldest, listed_up_to - OVERLAP)
        if listed_up_to is not None and listed_up_to < oldest:
            _log.error("stripe_events_lost", listed_up_to=listed_up_to.isoformat())
        types = sorted(KNOWN_EVENTS)
        missed, step = 0, max(LEAST_STEP, now - since)
        while True:
            now, until = self._clock.now(), since + step
            # The last step has no end, so that it does not matter whose clock is ahead.
            is_last = until >= now
            most = None if step == LEAST_STEP else EVENTS_AT_ONCE
            listed = await self._gateway.list_events(types, since, None if is_last else until, most)
            missed += await self._store(listed.events)
            if not listed.is_whole:
                step = max(LEAST_STEP, step // 4)
                continue
            await self._events.note_listed(is_live, min(until, now))
            if is_last:
                return missed
            since = until
            if len(listed.events) < EVENTS_AT_ONCE // 4:
                step *= 2

    async def _store(self, events: list[StripeEvent]) -> int:
        """Store events that are new, and have them followed; return how many."""
        missed = await self._events.add(events, self._gateway.is_live, "sweep")
        if missed:
            self._metrics.events.labels("sweep", "stored").inc(len(missed))
            _log.warning("stripe_events_missed", events=len(missed))
            self._worker.wake()
        return len(missed)

    async def look_at_purchases(self, unseen_for: timedelta) -> int:
        """Follow purchases that stay open without news; return how many. Raises Outage."""
        looked = 0
        while True:
            taken = await self._purchases.take_open(
                self._gateway.is_live, unseen_for, PURCHASES_AT_ONCE
            )
            for purchase in taken:
                if purchase.session_id is not None:
                    try:
                        await self._fulfilment.follow_session(purchase.session_id)
                    except StripeRefused as error:
                        _log.error(
                            "purchase_unclear", purchase_id=str(purchase.id), reason=str(error)
                        )
                elif (
                    purchase.kind is not PurchaseKind.AUTO_TOP_UP
                    and self._clock.now() - purchase.created_at > ABANDONED_AFTER
                ):
                    await self._purchases.end(
                        purchase.id, PurchaseState.ENDED, "its page was never shown"
                    )
            looked += len(taken)
            if len(taken) < PURCHASES_AT_ONCE:
                return looked
