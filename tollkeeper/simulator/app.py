"""Puts the simulator together."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web

from tollkeeper.simulator.answers.answering import Answerer
from tollkeeper.simulator.answers.errors import error_response, refuse
from tollkeeper.simulator.answers.misbehaviour import Behaviours
from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.catalogue import Catalogue, Model
from tollkeeper.simulator.control import Control
from tollkeeper.simulator.dialects import OPENROUTER
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.generation import Generations
from tollkeeper.simulator.inference import Inference
from tollkeeper.simulator.keyring import Keyring
from tollkeeper.simulator.received import ReceivedRequests
from tollkeeper.simulator.reports.broadcast import NoBroadcast, make_broadcast
from tollkeeper.simulator.settings import SimulatorSettings

REQUEST_MAX_BYTES = 64 * 1024 * 1024


def utc_now() -> datetime:
    return datetime.now(UTC)


class Lookups:
    """The endpoints that cost nothing: models, a generation's record, the key's standing."""

    def __init__(
        self,
        dialect: ProviderDialect,
        catalogue: Catalogue,
        generations: Generations,
        bill: Bill,
        keyring: Keyring,
    ) -> None:
        self._dialect = dialect
        self._catalogue = catalogue
        self._models = self._list(lambda _: True)
        self._generations = generations
        self._bill = bill
        self._keyring = keyring

    async def models(self, request: web.Request) -> web.Response:
        """List the models. OpenRouter asks for no key, all others do."""
        if self._dialect is not OPENROUTER:
            try:
                self._keyring.check(request)
            except Refusal as refusal:
                return refuse(self._dialect, request.path, refusal)
            return _json(self._models)
        wanted = request.query.get("output_modalities", "text")
        if wanted == "all":
            return _json(self._models)
        kinds = wanted.split(",")
        return _json(self._list(lambda model: model.replies in kinds))

    def _list(self, is_wanted: Callable[[Model], bool]) -> bytes:
        models = filter(is_wanted, self._catalogue)
        return json.dumps(self._dialect.list_models(models), separators=(",", ":")).encode()

    async def generation(self, request: web.Request) -> web.Response:
        try:
            self._keyring.check(request)
        except Refusal as refusal:
            return refuse(self._dialect, request.path, refusal)
        generation_id = request.query.get("id", "")
        record = self._generations.find(generation_id)
        if record is None:
            return error_response(
                self._dialect, request.path, 404, f"Generation {generation_id} not found"
            )
        return _json(record)

    async def key(self, request: web.Request) -> web.Response:
        try:
            self._keyring.check(request)
        except Refusal as refusal:
            return refuse(self._dialect, request.path, refusal)
        known = {"label": "sk-or-...", "limit": None, "is_free_tier": False}
        body = f'{{"data":{json.dumps(known)[:-1]},"usage":{self._bill.total_usd}}}}}'
        return _json(body.encode())


def build_app(
    bill: Bill,
    settings: SimulatorSettings,
    *,
    dialect: ProviderDialect = OPENROUTER,
    seed: int = 0,
    delay_ms: int = 0,
    now: Callable[[], datetime] = utc_now,
) -> web.Application:
    """One provider over an open bill. The caller closes the bill.

    The key and the webhook of the settings are OpenRouter's.
    """
    is_openrouter = dialect is OPENROUTER
    catalogue = Catalogue(dialect.models(), dialect.catalogue_name)
    vocabulary = Vocabulary(seed)
    generations = Generations(bill, catalogue, settings.generation_delay_ms, now)
    behaviours, received = Behaviours(), ReceivedRequests()
    keyring = Keyring(dialect, settings.key if is_openrouter else None)
    app = web.Application(client_max_size=REQUEST_MAX_BYTES)
    inference = Inference(
        dialect=dialect,
        answerer=Answerer(dialect, catalogue, vocabulary, now),
        vocabulary=vocabulary,
        bill=bill,
        generations=generations,
        behaviours=behaviours,
        broadcast=make_broadcast(app, bill, settings, now) if is_openrouter else NoBroadcast(),
        received=received,
        keyring=keyring,
        delay_ms=delay_ms,
    )
    app.add_routes(Control(behaviours, received, bill, keyring).routes())
    lookups = Lookups(dialect, catalogue, generations, bill, keyring)
    base_path = dialect.base_path
    handlers = {
        Endpoint.CHAT_COMPLETIONS: ("chat/completions", inference.chat_completions),
        Endpoint.COMPLETIONS: ("completions", inference.completions),
        Endpoint.EMBEDDINGS: ("embeddings", inference.embeddings),
        Endpoint.RESPONSES: ("responses", inference.responses),
        Endpoint.MESSAGES: ("messages", inference.messages),
        Endpoint.IMAGES: ("images", inference.images),
        Endpoint.RERANK: ("rerank", inference.rerank),
        Endpoint.SPEECH: ("audio/speech", inference.speech),
        Endpoint.TRANSCRIPTIONS: ("audio/transcriptions", inference.transcriptions),
    }
    offered = (handlers[endpoint] for endpoint in Endpoint if endpoint in dialect.endpoints)
    app.add_routes([web.post(f"{base_path}/{path}", handler) for path, handler in offered])
    app.add_routes([web.get(f"{base_path}/models", lookups.models)])
    if is_openrouter:
        app.add_routes([web.get(f"{base_path}/generation", lookups.generation)])
        app.add_routes([web.get(f"{base_path}/key", lookups.key)])
    # Last: the router takes the first route that matches.
    app.add_routes([web.route("*", f"{base_path}/{{rest:.*}}", inference.unknown)])
    return app


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
