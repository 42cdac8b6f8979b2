"""The simulator's own control API, under ``/control``: misbehave, look, start afresh."""

import json
from dataclasses import asdict

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tollkeeper.simulator.answers.misbehaviour import Behaviour, Behaviours
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.keyring import Keyring
from tollkeeper.simulator.received import REQUESTS_KEPT, ReceivedRequests

REQUESTS_LISTED_DEFAULT = 20


class ToldKey(BaseModel):
    """One provider key, and whether it is accepted from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(min_length=1, max_length=1_000)
    is_accepted: bool = True


class Control:
    """Handlers of the control API. It asks for no key: the simulator is for loopback."""

    def __init__(
        self, behaviours: Behaviours, received: ReceivedRequests, bill: Bill, keyring: Keyring
    ) -> None:
        self._behaviours = behaviours
        self._received = received
        self._bill = bill
        self._keyring = keyring

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/control/behaviours", self.add_behaviour),
            web.get("/control/behaviours", self.list_behaviours),
            web.put("/control/behaviours", self.replace_behaviour),
            web.delete("/control/behaviours", self.clear_behaviours),
            web.post("/control/keys", self.tell_key),
            web.get("/control/requests", self.list_requests),
            web.get("/control/bill", self.show_bill),
            web.post("/control/reset", self.reset),
        ]

    async def add_behaviour(self, request: web.Request) -> web.Response:
        try:
            behaviour = Behaviour.model_validate_json(await request.read())
            self._behaviours.add(behaviour)
        except ValueError as error:
            return _invalid(error)
        return await self.list_behaviours(request)

    async def replace_behaviour(self, request: web.Request) -> web.Response:
        """Put one behaviour in the place of all others, with no moment between."""
        try:
            behaviour = Behaviour.model_validate_json(await request.read())
        except ValueError as error:
            return _invalid(error)
        self._behaviours.clear()
        self._behaviours.add(behaviour)
        return await self.list_behaviours(request)

    async def tell_key(self, request: web.Request) -> web.Response:
        """Accept or reject one provider key."""
        try:
            told = ToldKey.model_validate_json(await request.read())
            self._keyring.tell(told.key, is_accepted=told.is_accepted)
        except ValueError as error:
            return _invalid(error)
        return web.Response(status=204)

    async def list_behaviours(self, request: web.Request) -> web.Response:
        status = 201 if request.method == "POST" else 200
        return web.json_response({"behaviours": self._behaviours.listed()}, status=status)

    async def clear_behaviours(self, request: web.Request) -> web.Response:
        self._behaviours.clear()
        return web.Response(status=204)

    async def list_requests(self, request: web.Request) -> web.Response:
        text = request.query.get("limit", str(REQUESTS_LISTED_DEFAULT))
        if not text.isdecimal() or not 1 <= int(text) <= REQUESTS_KEPT:
            return _problem(f"limit must be a whole number from 1 to {REQUESTS_KEPT}")
        requests = [one.to_json() for one in self._received.latest(int(text))]
        return web.json_response({"count": self._received.count, "requests": requests})

    async def show_bill(self, request: web.Request) -> web.Response:
        """The rows kept in memory; ``count`` and ``sum`` are of the whole bill."""
        rows = [asdict(row) for row in self._bill.rows()]
        bill = {"count": self._bill.row_count, "sum": self._bill.total_usd, "rows": rows}
        return web.json_response(bill)

    async def reset(self, request: web.Request) -> web.Response:
        """Forget behaviours and requests. The bill is append-only: it stays."""
        self._behaviours.clear()
        self._received.clear()
        return web.Response(status=204)


def _invalid(error: ValueError) -> web.Response:
    if not isinstance(error, ValidationError):
        return _problem(str(error))
    return _problem(
        "; ".join(
            f"{'.'.join(str(step) for step in fault['loc']) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    )


def _problem(message: str) -> web.Response:
    body = json.dumps({"error": {"message": message, "code": 400}})
    return web.Response(status=400, text=body, content_type="application/json")
