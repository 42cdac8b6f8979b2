"""Test clocks: time that a test moves for the customers that it puts on a clock."""

from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.timeline import Timeline
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

KEPT_SECONDS = 30 * 24 * 3600
TIME_MAX = 1 << 40


class TestClocks:
    """Makes and advances test clocks. Advancing ends a moment after its answer, as at Stripe."""

    # No class of tests, in spite of its name.
    __test__ = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = world.store.collection("test_helpers.test_clock")

    def operations(self) -> list[Operation]:
        one = "/v1/test_helpers/test_clocks/{test_clock}"
        return [
            Operation("POST", "/v1/test_helpers/test_clocks", self.create),
            Operation("GET", "/v1/test_helpers/test_clocks", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("DELETE", one, self.delete),
            Operation("POST", f"{one}/advance", self.advance),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        frozen, name = given.integer("frozen_time", 0, TIME_MAX), given.text("name")
        given.finish()
        if frozen is None:
            raise given.absent("frozen_time")
        now = self._world.wall.now()
        clock: Json = {
            "id": new_id("clock"),
            "object": "test_helpers.test_clock",
            "created": now,
            "deletes_after": now + KEPT_SECONDS,
            "frozen_time": frozen,
            "livemode": False,
            "name": name,
            "status": "ready",
            "status_details": {},
        }
        self._world.clocks[clock["id"]] = Timeline(frozen)
        self._world.store.add(clock)
        self._world.events.emit("test_helpers.test_clock.created", clock)
        return clock

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._get(call)

    def browse(self, call: Call) -> Json:
        return self._all.page(call.parameters, call.url, by_created(call.parameters))

    def delete(self, call: Call) -> Json:
        """Delete a clock with its customers; what was due on it never happens."""
        clock = self._get(call)
        call.parameters.finish()
        store = self._world.store
        for customer in store.of("customer").where(test_clock=clock["id"]):
            store.remove(customer)
        store.remove(clock)
        self._world.events.emit("test_helpers.test_clock.deleted", clock)
        return {"id": clock["id"], "object": clock["object"], "deleted": True}

    def advance(self, call: Call) -> Json:
        clock = self._get(call)
        given = call.parameters
        until = given.integer("frozen_time", 0, TIME_MAX)
        given.finish()
        if until is None or until <= clock["frozen_time"]:
            raise bad_parameter(
                "frozen_time must be after the clock's current frozen_time.", "frozen_time"
            )
        if clock["status"] != "ready":
            raise invalid("The test clock is being advanced. Wait until its status is ready.")
        clock["status"] = "advancing"
        clock["status_details"] = {"advancing": {"target_frozen_time": until}}
        self._world.events.emit("test_helpers.test_clock.advancing", clock)

        def finish() -> None:
            self._world.clocks[clock["id"]].advance_to(until)
            clock.update(frozen_time=until, status="ready", status_details={})
            self._world.events.emit("test_helpers.test_clock.ready", clock)

        self._world.wall.at(self._world.wall.now(), finish)
        return clock

    def _get(self, call: Call) -> Json:
        return self._world.store.get("test_helpers.test_clock", call.path["test_clock"])
