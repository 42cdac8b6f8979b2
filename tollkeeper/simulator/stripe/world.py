"""The state that the object families share: time, objects, events, books."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tollkeeper.simulator.stripe.books import Books
from tollkeeper.simulator.stripe.events import EventLog
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings
from tollkeeper.simulator.stripe.store import Store
from tollkeeper.simulator.stripe.timeline import Timeline, WallTimeline
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json


@dataclass(slots=True)
class Call:
    """One request, as an operation sees it."""

    parameters: Parameters
    path: dict[str, str]
    url: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A route on Stripe's API. The handler runs without a pause, so a request is one step."""

    method: str
    path: str
    handle: Callable[[Call], Json]


@dataclass(slots=True)
class World:
    """The shared state.

    `includable` has the members that an object shows only when `expand` names them. `base_url`
    is where hosted pages are served.
    """

    settings: StripeSimulatorSettings
    wall: WallTimeline
    events: EventLog
    store: Store = field(default_factory=Store)
    books: Books = field(default_factory=Books)
    clocks: dict[str, Timeline] = field(default_factory=dict)
    includable: dict[tuple[str, str], Callable[[Json], object]] = field(default_factory=dict)
    base_url: str = ""

    def timeline_of(self, customer: Json | None) -> Timeline:
        """Return the test clock of a customer, or the machine's clock."""
        clock = customer and customer.get("test_clock")
        return self.clocks[clock] if clock else self.wall


def make_world(settings: StripeSimulatorSettings, clock: Callable[[], float] = time.time) -> World:
    """Return an empty world. `clock` gives seconds since 1970 in UTC."""
    wall = WallTimeline(clock)
    return World(settings, wall, EventLog(wall.now))
