"""Follows stored events: fetches the object of each and brings it up to date here."""

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from meter.errors import MeterError, Outage, StoreUnavailable
from meter.payments.event_store import (
    INVOICE_EVENTS,
    PAYMENT_EVENTS,
    SESSION_EVENTS,
    SUBSCRIPTION_EVENTS,
    EventState,
    EventStore,
    TakenEvent,
)
from meter.payments.fulfilment import Followed, Fulfilment
from meter.payments.metrics import PaymentMetrics
from meter.process.periodic import until_done

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway

# Events that other meters stored, and those that were put off, are found by looking.
LOOK_EVERY_S: Final = 5.0
RETRY_S: Final = 1.0
EVENTS_AT_ONCE: Final = 50
FOLLOWED_AT_ONCE: Final = 8
# Events of a meter that died are taken over then. Two that follow one event do no harm.
LEASE: Final = timedelta(minutes=1)
FIRST_RETRY_S: Final = 2.0
MOST_RETRY_S: Final = 3_600.0
# Refused so often, an event is parked: an administrator must look at it.
MOST_REFUSALS: Final = 5
ALARM_AGE_S: Final = 3_600.0

_log = structlog.get_logger(__name__)


class EventWorker:
    """The work in the background that follows events."""

    def __init__(
        self,
        events: EventStore,
        fulfilment: Fulfilment,
        gateway: "StripeGateway",
        metrics: PaymentMetrics,
    ) -> None:
        self._events = events
        self._fulfilment = fulfilment
        self._gateway = gateway
        self._metrics = metrics
        self._arrived = asyncio.Event()
        self._measure_at_s = 0.0

    def wake(self) -> None:
        """Look for events now: some were stored."""
        self._arrived.set()

    async def run(self) -> NoReturn:
        """Follow events until cancelled, through outages of Postgres and of Stripe."""
        while True:
            self._arrived.clear()
            work = partial(until_done, "stripe_events", self.follow_all, RETRY_S)
            await work((StoreUnavailable,), most_retry_s=LOOK_EVERY_S)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._arrived.wait()
            except TimeoutError:
                continue

    async def follow_all(self) -> int:
        """Follow events until none has its turn; return how many. Raises StoreUnavailable."""
        followed = 0
        while taken := await self._events.take(self._gateway.is_live, LEASE, EVENTS_AT_ONCE):
            slots = asyncio.Semaphore(FOLLOWED_AT_ONCE)
            # An object is followed as it is now, once for all that is told of it.
            told: dict[str, list[TakenEvent]] = {}
            for event in taken:
                told.setdefault(event.object_id, []).append(event)

            async def follow(events: list[TakenEvent], slots: asyncio.Semaphore = slots) -> None:
                async with slots:
                    await self._follow(events)

            await asyncio.gather(*(follow(events) for events in told.values()))
            followed += len(taken)
            if len(taken) < EVENTS_AT_ONCE:
                break
        if time.monotonic() >= self._measure_at_s:
            await self._measure()
            self._measure_at_s = time.monotonic() + LOOK_EVERY_S
        return followed

    async def _follow(self, events: list[TakenEvent]) -> None:
        """Follow the object of these events; what cannot be followed is put off or parked."""
        try:
            outcome = await self._follow_object(events[0])
        except Outage as error:
            for event in events:
                pause_s = min(FIRST_RETRY_S * 2 ** min(event.attempts - 1, 20), MOST_RETRY_S)
                await self._events.retry(event.id, timedelta(seconds=pause_s), str(error))
                self._metrics.events.labels("worker", "retried").inc()
        except MeterError as error:
            for event in events:
                await self._refuse(event, str(error))
        else:
            state = EventState.DONE if outcome is Followed.DONE else EventState.FOREIGN
            for event in events:
                await self._events.end(event.id, state)
                self._metrics.events.labels("worker", state.value).inc()

    async def _follow_object(self, event: TakenEvent) -> Followed:
        if event.type in SESSION_EVENTS:
            return await self._fulfilment.follow_session(event.object_id)
        if event.type in PAYMENT_EVENTS:
            return await self._fulfilment.follow_payment(event.object_id)
        if event.type in INVOICE_EVENTS:
            return await self._fulfilment.follow_invoice(event.object_id)
        if event.type in SUBSCRIPTION_EVENTS:
            return await self._fulfilment.follow_subscription(event.object_id)
        payment_id = await self._gateway.find_payment_id(event.type, event.object_id)
        if payment_id is None:
            return Followed.FOREIGN
        return await self._fulfilment.follow_reversals(payment_id)

    async def _refuse(self, event: TakenEvent, reason: str) -> None:
        if event.attempts < MOST_REFUSALS:
            pause = timedelta(seconds=FIRST_RETRY_S * 2**event.attempts)
            await self._events.retry(event.id, pause, reason)
            self._metrics.events.labels("worker", "retried").inc()
            return
        await self._events.end(event.id, EventState.PARKED, reason)
        self._metrics.events.labels("worker", "parked").inc()
        _log.error("stripe_event_parked", event_id=event.id, type=event.type, reason=reason)

    async def _measure(self) -> None:
        waiting = await self._events.measure()
        self._metrics.oldest_waiting_s.set(waiting.oldest_s)
        self._metrics.parked.set(waiting.parked)
        if waiting.oldest_s > ALARM_AGE_S:
            _log.error("stripe_events_late", oldest_s=round(waiting.oldest_s))
