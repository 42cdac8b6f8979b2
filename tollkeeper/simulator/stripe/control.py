"""The simulator's own control API, under ``/control``: faults, time, books, disputes."""

import json

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tollkeeper.simulator.stripe.faults import Fault, Faults
from tollkeeper.simulator.stripe.payments.disputes import REASONS, Disputes
from tollkeeper.simulator.stripe.webhooks import Deliveries
from tollkeeper.simulator.stripe.wire.problem import Problem
from tollkeeper.simulator.stripe.world import World

ROWS_MAX = 10_000
SKIP_MAX_SECONDS = 400 * 24 * 3600


class Skip(BaseModel):
    """A move of the clock."""

    model_config = ConfigDict(extra="forbid")

    seconds: int = Field(ge=0, le=SKIP_MAX_SECONDS)


class NewDispute(BaseModel):
    """A dispute that a cardholder opens; by default over all that is left of the charge."""

    model_config = ConfigDict(extra="forbid")

    charge: str
    amount: int | None = Field(default=None, ge=1)
    reason: str = Field(default="fraudulent", pattern="|".join(REASONS))
    is_inquiry: bool = False


class StripeControl:
    """Handlers of the control API. It asks for no key: the simulator is for loopback."""

    def __init__(
        self, world: World, faults: Faults, deliveries: Deliveries, disputes: Disputes
    ) -> None:
        self._world = world
        self._faults = faults
        self._deliveries = deliveries
        self._disputes = disputes

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/control/faults", self.add_fault),
            web.get("/control/faults", self.list_faults),
            web.delete("/control/faults", self.clear_faults),
            web.post("/control/clock", self.skip),
            web.post("/control/disputes", self.open_dispute),
            web.post("/control/events/{event}/resend", self.resend),
            web.get("/control/books", self.show_books),
            web.get("/control/status", self.show_status),
        ]

    async def add_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.add(Fault.model_validate_json(await request.read()))
        except ValidationError as error:
            return _problem(_explain(error))
        except ValueError as error:
            return _problem(str(error))
        return web.json_response({"faults": self._faults.listed()}, status=201)

    async def list_faults(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": self._faults.listed()})

    async def clear_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return web.Response(status=204)

    async def skip(self, request: web.Request) -> web.Response:
        """Move the clock on; what falls due on the way happens before the answer."""
        try:
            skip = Skip.model_validate_json(await request.read())
        except ValidationError as error:
            return _problem(_explain(error))
        self._world.wall.skip(skip.seconds)
        return web.json_response({"now": self._world.wall.now()})

    async def open_dispute(self, request: web.Request) -> web.Response:
        try:
            asked = NewDispute.model_validate_json(await request.read())
            charge = self._world.store.get("charge", asked.charge)
            dispute = self._disputes.open(
                charge, asked.reason, asked.amount, is_inquiry=asked.is_inquiry
            )
        except ValidationError as error:
            return _problem(_explain(error))
        except Problem as problem:
            return _problem(problem.message)
        return web.json_response(dispute, status=201)

    async def resend(self, request: web.Request) -> web.Response:
        try:
            event = self._world.events.get(request.match_info["event"])
        except Problem as problem:
            return _problem(problem.message)
        return web.json_response({"deliveries": self._deliveries.resend(event)}, status=202)

    async def show_books(self, request: web.Request) -> web.Response:
        """Return sums by customer, and rows with numbers above `after`; amounts in cents."""
        after, limit = request.query.get("after", "0"), request.query.get("limit", "1000")
        if not after.isdecimal() or not limit.isdecimal() or not 1 <= int(limit) <= ROWS_MAX:
            return _problem(f"after and limit are whole numbers, limit from 1 to {ROWS_MAX}")
        rows = self._world.books.rows(int(after), int(limit))
        return web.json_response({"customers": self._world.books.sums(), "rows": rows})

    async def show_status(self, request: web.Request) -> web.Response:
        """Return the time, and what is still to be delivered or to fall due."""
        return web.json_response(
            {
                "now": self._world.wall.now(),
                "next_due": self._world.wall.next_due(),
                "events": len(self._world.events),
                "deliveries_waiting": len(self._deliveries),
            }
        )


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(step) for step in fault['loc']) or 'body'}: {fault['msg']}"
        for fault in error.errors(include_url=False)
    )


def _problem(message: str) -> web.Response:
    body = json.dumps({"error": {"message": message}})
    return web.Response(status=400, text=body, content_type="application/json")
