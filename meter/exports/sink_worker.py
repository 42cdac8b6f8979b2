"""Sends usage to sinks: in order, at least once, each sink for itself.

The position in history is the queue. A sink that is away keeps its position, however long it is
away, and goes on from there. Events that a sink refuses are found by halving and parked.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import Final, NoReturn
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from meter.errors import StoreUnavailable
from meter.exports.horizon import find_horizon
from meter.exports.sending import EventsRefused, SinkUnavailable
from meter.exports.sink import SinkState
from meter.exports.sink_delivery import MOST_EVENTS, SinkDelivery
from meter.exports.sink_store import SinkStore, TakenSink
from meter.exports.usage_events import UsageEvent
from meter.postgres.pool import PostgresPool
from meter.process.background import RunningTasks
from meter.process.halving import in_halves
from meter.process.periodic import periodic

LOOK_EVERY_S: Final = 2.0
RETRY_S: Final = 5.0
# Positions that are read at once: 1,000 records at most, some 1 MB.
WINDOW: Final = 1_000
# With so many parked events a sink takes no more: its refusals are no exceptions.
MOST_PARKED: Final = 1_000
ALARM_LAG_S: Final = 3_600.0

_log = structlog.get_logger(__name__)


class _Lost(Exception):
    """The sink is no longer this worker's: it was paused, changed or taken over."""


class SinkWorker:
    """The work in the background; several meters may have it at once."""

    def __init__(
        self,
        pool: PostgresPool,
        sinks: SinkStore,
        delivery: SinkDelivery,
        registry: CollectorRegistry,
        most_parked: int = MOST_PARKED,
    ) -> None:
        self._pool = pool
        self._sinks = sinks
        self._delivery = delivery
        self._most_parked = most_parked
        self._id = uuid4()
        self._running = RunningTasks()
        self._late: set[str] = set()
        self._lag_s = Gauge(
            "tollkeeper_sink_lag_seconds",
            "The age of the oldest usage that a sink did not take; 0 where it took all.",
            ("sink",),
            registry=registry,
        )
        self._behind = Gauge(
            "tollkeeper_sink_behind_positions",
            "Positions of the ledger that a sink has not reached; not all are usage.",
            ("sink",),
            registry=registry,
        )
        self._parked = Gauge(
            "tollkeeper_sink_parked_events",
            "Events that a sink refuses, until an administrator replays or discards them.",
            ("sink",),
            registry=registry,
        )
        self._events = Counter(
            "tollkeeper_sink_events",
            "Events that sinks took or refused (sent, parked).",
            ("sink", "outcome"),
            registry=registry,
        )
        self._failures = Counter(
            "tollkeeper_sink_failures",
            "Attempts at which a sink took nothing; tried again.",
            ("sink",),
            registry=registry,
        )

    async def run(self) -> NoReturn:
        """Send until cancelled, through outages of Postgres and of sinks."""
        try:
            await periodic("sinks", self._look, LOOK_EVERY_S, RETRY_S, (StoreUnavailable,))
        finally:
            await self._running.cancel()

    async def send_all(self) -> None:
        """Send what is due now, and wait for the end. Raises StoreUnavailable."""
        await asyncio.gather(*(self._serve(taken) for taken in await self._sinks.take(self._id)))
        await self._measure()

    async def _look(self) -> None:
        # A task for each sink: one that is slow delays no other.
        for taken in await self._sinks.take(self._id):
            self._running.start(f"sink {taken.to.sink_id}", self._serve(taken))
        await self._measure()

    async def _serve(self, taken: TakenSink) -> None:
        """Send to one sink until it took everything, or takes nothing."""
        sink_id = taken.to.sink_id
        keeps_lease = False
        try:
            await self._replay(taken)
            await self._send(taken)
        except _Lost:
            pass
        except SinkUnavailable as error:
            self._failures.labels(sink_id).inc()
            _log.warning("sink_unavailable", sink_id=sink_id, reason=str(error))
            with contextlib.suppress(StoreUnavailable):
                oldest_at = await self._oldest(taken)
                await self._sinks.put_off(sink_id, self._id, str(error), oldest_at)
        except StoreUnavailable as error:
            _log.warning("sink_waits", sink_id=sink_id, reason=str(error))
        except Exception:
            # The lease ends by itself, so that a fault is not met at every look.
            keeps_lease = True
            self._failures.labels(sink_id).inc()
            _log.exception("sink_failed", sink_id=sink_id)
        finally:
            # Also where the meter stops, so that the next one need not wait for the lease.
            if not keeps_lease:
                with contextlib.suppress(StoreUnavailable):
                    await self._sinks.give_back(sink_id, self._id)

    async def _send(self, taken: TakenSink) -> None:
        position = taken.position
        horizon = await find_horizon(self._pool)
        last_at = None
        while position < horizon:
            up_to = min(position + WINDOW, horizon)
            events = await self._sinks.read(taken.to, position, up_to)
            for start in range(0, len(events), MOST_EVENTS):
                await self._deliver(taken, events[start : start + MOST_EVENTS], is_replay=False)
            if events:
                last_at = events[-1].recorded_at
            left_at = last_at if up_to < horizon else None
            if not await self._sinks.acknowledge(taken.to.sink_id, self._id, up_to, 0, left_at):
                raise _Lost
            position = up_to

    async def _replay(self, taken: TakenSink) -> None:
        while events := await self._sinks.read_replayed(taken.to.sink_id, MOST_EVENTS):
            await self._deliver(taken, events, is_replay=True)

    async def _deliver(self, taken: TakenSink, events: list[UsageEvent], is_replay: bool) -> None:
        """Deliver events in order, and note after each part how far the sink is."""
        sink_id = taken.to.sink_id

        async def attempt(part: list[UsageEvent]) -> None:
            await self._delivery.deliver(taken.to, part)
            positions = [event.position for event in part]
            acknowledged = await self._sinks.acknowledge(
                sink_id,
                self._id,
                0 if is_replay else positions[-1],
                len(part),
                part[-1].recorded_at,
                positions if is_replay else (),
            )
            if not acknowledged:
                raise _Lost
            self._events.labels(sink_id, "sent").inc(len(part))

        async def give_up(event: UsageEvent, error: Exception) -> None:
            if not is_replay and await self._sinks.count_parked(sink_id) >= self._most_parked:
                raise SinkUnavailable(
                    f"{self._most_parked} of its events are parked already; look at them, and "
                    f"replay or discard them. The last: {error}"
                )
            position = 0 if is_replay else event.position
            if not await self._sinks.park(sink_id, self._id, position, event, str(error)):
                raise _Lost
            self._events.labels(sink_id, "parked").inc()
            _log.error(
                "sink_event_parked", sink_id=sink_id, position=event.position, reason=str(error)
            )

        await in_halves(events, attempt, give_up, divisive=EventsRefused)

    async def _oldest(self, taken: TakenSink) -> datetime | None:
        """Return when the oldest record that a sink did not take was recorded."""
        position = (await self._sinks.get(taken.to.sink_id)).position
        events = await self._sinks.read(taken.to, position, position + WINDOW)
        return events[0].recorded_at if events else None

    async def _measure(self) -> None:
        sinks = [one for one in await self._sinks.list_all() if one.state is not SinkState.ENDED]
        for gauge in (self._lag_s, self._behind, self._parked):
            gauge.clear()
        for sink in sinks:
            self._lag_s.labels(sink.id).set(sink.lag_s)
            self._behind.labels(sink.id).set(sink.behind)
            self._parked.labels(sink.id).set(sink.parked)
        late = {sink.id for sink in sinks if sink.lag_s > ALARM_LAG_S}
        for sink_id in sorted(late - self._late):
            _log.error("sink_late", sink_id=sink_id)
        self._late = late
