"""Puts the simulator together."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web

from tollkeeper.simulator.answers.answering import Answerer
from tollkeeper.simulator.answers.misbehaviour import Behaviours
from tollkeeper.simulator.answers.refusal import Refusal, error_response
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.catalogue import Catalogue
from tollkeeper.simulator.control import Control
from tollkeeper.simulator.generation import Generations
from tollkeeper.simulator.inference import Inference, Keyring
from tollkeeper.simulator.received import ReceivedRequests
from tollkeeper.simulator.reports.broadcast import make_broadcast
from tollkeeper.simulator.settings import SimulatorSettings

BASE_PATH = "/api/v1"
REQUEST_MAX_BYTES = 64 * 1024 * 1024


def utc_now() -> datetime:
    return datetime.now(UTC)


class Lookups:
    """The endpoints that cost nothing: models, a generation's record, the key's standing."""

    def __init__(
        self, catalogue: Catalogue, generations: Generations, bill: Bill, keyring: Keyring
    ) -> None:
        self._catalogue = catalogue
        self._generations = generations
        self._bill = bill
        self._keyring = keyring

    async def models(self, request: web.Request) -> web.Response:
        return _json(self._catalogue.body)

    async def generation(self, request: web.Request) -> web.Response:
        try:
            self._keyring.check(request)
        except Refusal as refusal:
            return refusal.to_response()
        generation_id = request.query.get("id", "")
        record = self._generations.find(generation_id)
        if record is None:
            return error_response(404, f"Generation {generation_id} not found")
        return _json(record)

    async def key(self, request: web.Request) -> web.Response:
        try:
            self._keyring.check(request)
        except Refusal as refusal:
            return refusal.to_response()
        known = {"label": "sk-or-...", "limit": None, "is_free_tier": False}
        body = f'{{"data":{json.dumps(known)[:-1]},"usage":{self._bill.total_usd}}}}}'
        return _json(body.encode())


def build_app(
    bill: Bill,
    settings: SimulatorSettings,
    *,
    seed: int = 0,
    delay_ms: int = 0,
    now: Callable[[], datetime] = utc_now,
) -> web.Application:
    """The whole simulator over an open bill. The caller closes the bill."""
    catalogue, vocabulary = Catalogue.load(), Vocabulary(seed)
    generations = Generations(bill, catalogue, settings.generation_delay_ms, now)
    behaviours, received = Behaviours(), ReceivedRequests()
    keyring = Keyring(settings.key)
    app = web.Application(client_max_size=REQUEST_MAX_BYTES)
    inference = Inference(
        answerer=Answerer(catalogue, vocabulary, now),
        vocabulary=vocabulary,
        bill=bill,
        generations=generations,
        behaviours=behaviours,
        broadcast=make_broadcast(app, bill, settings, now),
        received=received,
        keyring=keyring,
        delay_ms=delay_ms,
    )
    app.add_routes(Control(behaviours, received, bill).routes())
    lookups = Lookups(catalogue, generations, bill, keyring)
    app.add_routes(
        [
            web.post(f"{BASE_PATH}/chat/completions", inference.chat_completions),
            web.post(f"{BASE_PATH}/completions", inference.completions),
            web.post(f"{BASE_PATH}/embeddings", inference.embeddings),
            web.get(f"{BASE_PATH}/models", lookups.models),
            web.get(f"{BASE_PATH}/generation", lookups.generation),
            web.get(f"{BASE_PATH}/key", lookups.key),
            # Last: the router takes the first route that matches.
            web.route("*", f"{BASE_PATH}/{{rest:.*}}", inference.unknown),
        ]
    )
    return app


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
