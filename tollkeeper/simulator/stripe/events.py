"""The event log: what happened, with a snapshot of the object, and its deliveries."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tollkeeper.simulator.stripe.store import PAGE_DEFAULT, PAGE_MAX, new_id
from tollkeeper.simulator.stripe.wire.encoding import encode
from tollkeeper.simulator.stripe.wire.parameters import CreatedRange, Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter, missing

EVENTS_MAX = 2_000_000
LISTED_SECONDS = 30 * 24 * 3600
TYPES_MAX = 20


@dataclass(slots=True)
class RecordedEvent:
    """An event. The snapshot is kept as text: it must not change with its object."""

    id: str
    type: str
    created: int
    api_version: str
    data: str
    request_id: str | None
    idempotency_key: str | None
    pending_webhooks: int = 0

    def to_json(self) -> Json:
        return self._members(json.loads(self.data))

    def to_raw(self) -> Json:
        """Return the members of an event to be encoded; its snapshot is not read again for it."""
        return self._members(msgspec.Raw(self.data.encode()))

    def to_body(self) -> bytes:
        """Return the body of a webhook."""
        return encode(self.to_raw())

    def _members(self, data: object) -> Json:
        return {
            "id": self.id,
            "object": "event",
            "api_version": self.api_version,
            "created": self.created,
            "data": data,
            "livemode": False,
            "pending_webhooks": self.pending_webhooks,
            "request": {"id": self.request_id, "idempotency_key": self.idempotency_key},
            "type": self.type,
        }


class EventLog:
    """Events of the last 30 days, as Stripe lists them; the newest EVENTS_MAX are kept."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._events: list[RecordedEvent] = []
        self._positions: dict[str, int] = {}
        self._forgotten = 0
        self.api_version = ""
        self.request_id: str | None = None
        self.idempotency_key: str | None = None
        self.on_event: Callable[[RecordedEvent], None] = lambda event: None

    def __len__(self) -> int:
        return len(self._events)

    def emit(self, kind: str, row: Json, previous: dict[str, Any] | None = None) -> None:
        """Record that something happened to an object, and hand the event to the webhooks.

        `previous` has the earlier values of the members that changed.
        """
        data: Json = {"object": row}
        if previous is not None:
            data["previous_attributes"] = previous
        event = RecordedEvent(
            new_id("evt"),
            kind,
            # Never before the last, also when the machine's clock is set back.
            max(self._now(), self._events[-1].created if self._events else 0),
            self.api_version,
            msgspec.json.encode(data).decode(),
            self.request_id,
            self.idempotency_key,
        )
        if len(self._events) >= EVENTS_MAX:
            half = EVENTS_MAX // 2
            for old in self._events[:half]:
                del self._positions[old.id]
            del self._events[:half]
            self._forgotten += half
        self._positions[event.id] = self._forgotten + len(self._events)
        self._events.append(event)
        self.on_event(event)

    def get(self, identifier: str, param: str | None = None) -> RecordedEvent:
        position = self._positions.get(identifier)
        if position is None:
            raise missing("event", identifier, param or "id", 400 if param else 404)
        return self._events[position - self._forgotten]

    def page(self, parameters: Parameters, url: str) -> Json:
        """Return one page of events, newest first."""
        limit = parameters.integer("limit", 1, PAGE_MAX) or PAGE_DEFAULT
        after, before = parameters.text("starting_after"), parameters.text("ending_before")
        kind, kinds = parameters.text("type"), parameters.texts("types")
        created = CreatedRange(parameters)
        success = parameters.choice("delivery_success", ("true", "false"))
        parameters.finish()
        if kind and kinds:
            raise bad_parameter(
                "You may only specify one of these parameters: type, types.", "type"
            )
        if len(kinds) > TYPES_MAX:
            raise bad_parameter(f"types may have at most {TYPES_MAX} members.", "types")
        wanted = set(kinds or ([kind] if kind else []))
        prefixes = tuple(one[:-1] for one in wanted if one.endswith("*"))
        # Times never fall, so that bounds of time are bounds of positions.
        least = max(created.least, self._now() - LISTED_SECONDS)
        start = bisect_left(self._events, least, key=_created)
        end = bisect_right(self._events, created.most, key=_created)
        if before is not None:
            start = max(start, self._position(before, "ending_before") + 1)
        elif after is not None:
            end = min(end, self._position(after, "starting_after"))
        order = range(start, end) if before is not None else range(end - 1, start - 1, -1)
        found: list[RecordedEvent] = []
        has_more = False
        for position in order:
            event = self._events[position]
            if (not wanted or event.type in wanted or event.type.startswith(prefixes)) and (
                success is None or (event.pending_webhooks == 0) == (success == "true")
            ):
                if len(found) == limit:
                    has_more = True
                    break
                found.append(event)
        if before is not None:
            found.reverse()
        data = [event.to_raw() for event in found]
        return {"object": "list", "url": url, "has_more": has_more, "data": data}

    def _position(self, identifier: str, param: str) -> int:
        self.get(identifier, param)
        return self._positions[identifier] - self._forgotten


def _created(event: RecordedEvent) -> int:
    return event.created
