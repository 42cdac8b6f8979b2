"""Stripe's events in Postgres: each stored once, taken under a lease, and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import NotFound
from meter.payments.stripe_facts import StripeEvent
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.payments")
_INSERT_EVENTS: Final = _QUERIES["insert_events"]
_TAKE_EVENTS: Final = _QUERIES["take_events"]
_END_EVENT: Final = _QUERIES["end_event"]
_RETRY_EVENT: Final = _QUERIES["retry_event"]
_REPLAY_EVENT: Final = _QUERIES["replay_event"]
_LIST_EVENTS: Final = _QUERIES["list_events"]
_MEASURE_EVENTS: Final = _QUERIES["measure_events"]
_GET_SWEEP: Final = _QUERIES["get_sweep"]
_SAVE_SWEEP: Final = _QUERIES["save_sweep"]

MAX_ERROR_CHARS: Final = 500
# The events that move credit or end a purchase. Others are kept and counted.
SESSION_EVENTS: Final = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
    }
)
PAYMENT_EVENTS: Final = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.canceled",
    }
)
REVERSAL_EVENTS: Final = frozenset(
    {
        "charge.refunded",
        "refund.created",
        "refund.updated",
        "refund.failed",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    }
)
INVOICE_EVENTS: Final = frozenset(
    {"invoice.paid", "invoice.payment_failed", "invoice.payment_action_required"}
)
SUBSCRIPTION_EVENTS: Final = frozenset(
    {
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
    }
)
KNOWN_EVENTS: Final = (
    SESSION_EVENTS | PAYMENT_EVENTS | REVERSAL_EVENTS | INVOICE_EVENTS | SUBSCRIPTION_EVENTS
)


class EventState(StrEnum):
    """The states of a stored event. Only those that wait are followed."""

    WAITING = "waiting"
    DONE = "done"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class TakenEvent:
    """An event to follow now, and how often that was tried, this time included."""

    id: str
    type: str
    object_id: str
    attempts: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as administrators see it; `error` says why it waits or was parked."""

    id: str
    seq: int
    type: str
    object_id: str
    is_live: bool
    source: str
    state: EventState
    happened_at: datetime
    received_at: datetime
    attempts: int
    done_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class WaitingEvents:
    """The age of the oldest event that waits, in seconds, and the number of parked events."""

    oldest_s: float
    parked: int


class EventStore:
    """Keeps Stripe's events. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def add(self, events: Sequence[StripeEvent], is_live: bool, source: str) -> list[str]:
        """Store events of one mode, each once; return the ids of those that are new."""
        if not events:
            return []
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _INSERT_EVENTS,
                [one.id for one in events],
                [one.type for one in events],
                [one.object_id for one in events],
                is_live,
                [one.happened_at for one in events],
                source,
                [one.type in KNOWN_EVENTS for one in events],
            )
        return [row["id"] for row in rows]

    async def take(self, is_live: bool, lease: timedelta, limit: int) -> list[TakenEvent]:
        """Return events whose turn it is; another meter takes them when the lease has ended."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_TAKE_EVENTS, is_live, lease, limit)
        return [from_row(TakenEvent, row) for row in rows]

    async def end(self, event_id: str, state: EventState, error: str | None = None) -> None:
        """Note the outcome of an event."""
        text = None if error is None else error[:MAX_ERROR_CHARS]
        async with acquire(self._pool) as connection:
            await connection.execute(_END_EVENT, event_id, state.value, text)

    async def retry(self, event_id: str, after: timedelta, error: str) -> None:
        """Put an event off, with the reason."""
        async with acquire(self._pool) as connection:
            await connection.execute(_RETRY_EVENT, event_id, after, error[:MAX_ERROR_CHARS])

    async def replay(self, event_id: str, actor: Actor) -> StoredEvent:
        """Let an event be followed once more, which posts nothing twice. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_REPLAY_EVENT, event_id)
            if row is None:
                raise NotFound(f"there is no event '{event_id}'")
            event = AuditEvent("stripe_event.replayed", f"stripe_event:{event_id}")
            await write_audit(connection, actor, event)
        return from_row(StoredEvent, row, state=EventState(row["state"]))

    async def list_page(
        self, state: EventState | None, before: int | None, limit: int
    ) -> list[StoredEvent]:
        """Return events, newest first, older than the row `before`."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_EVENTS, state and state.value, before, limit)
        return [from_row(StoredEvent, row, state=EventState(row["state"])) for row in rows]

    async def measure(self) -> WaitingEvents:
        """Return how long events have waited, and how many are parked."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_MEASURE_EVENTS)
        assert row is not None
        return from_row(WaitingEvents, row)

    async def listed_up_to(self, is_live: bool) -> datetime | None:
        """Return the instant up to which the sweep has listed events; None before the first."""
        async with acquire(self._pool) as connection:
            found: datetime | None = await connection.fetchval(_GET_SWEEP, is_live)
        return found

    async def note_listed(self, is_live: bool, up_to: datetime) -> None:
        """Note up to which instant events were listed."""
        async with acquire(self._pool) as connection:
            await connection.execute(_SAVE_SWEEP, is_live, up_to)
