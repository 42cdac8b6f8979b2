"""One request from its bytes to its answer: key, version, idempotency, faults, errors."""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from tollkeeper.simulator.stripe.faults import Faults, Trouble, problem_of
from tollkeeper.simulator.stripe.wire.encoding import encode
from tollkeeper.simulator.stripe.wire.expansion import expand, read_paths
from tollkeeper.simulator.stripe.wire.form import parse_form
from tollkeeper.simulator.stripe.wire.idempotency import IdempotencyKeys
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Problem, bad_parameter
from tollkeeper.simulator.stripe.world import Call, Operation, World

#: Older versions have other members; the simulator does not speak them.
OLDEST_VERSION: Final = "2025-09-30.clover"
DEFAULT_VERSION: Final = "2026-10-28.endive"
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.[a-z]+")
_BODYLESS = ("GET", "DELETE")

log = structlog.get_logger()


class ApiHandling:
    """Turns operations into handlers of HTTP requests."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._keys = IdempotencyKeys()
        world.events.api_version = DEFAULT_VERSION

    def handler(
        self, operation: Operation
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = (await request.read()).decode("utf-8", "replace")
            return self._answer(request, operation, body)

        return handle

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Answer a path that the simulator does not know."""
        problem = Problem(
            404,
            "invalid_request_error",
            f"Unrecognized request URL ({request.method}: {request.path}). The simulator leaves "
            "out much of Stripe's API; see its README.",
        )
        request_id = _new_request_id()
        return _response(404, encode(problem.to_json(request_id)), request_id)

    def _answer(self, request: web.Request, operation: Operation, body: str) -> web.StreamResponse:
        """Answer in one step, without a pause: no other request sees anything half done."""
        request_id = _new_request_id()
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        headers = {"Stripe-Version": request.headers.get("Stripe-Version", DEFAULT_VERSION)}
        if key:
            headers["Idempotency-Key"] = key
        now = self._world.wall.now()
        trouble = self._faults.of_request(f"{request.method} {request.path}")
        try:
            self._check_key(request)
            _check_version(headers["Stripe-Version"])
            if trouble == Trouble.CUT:
                return _cut(request)
            if trouble in (Trouble.CONFLICT, Trouble.RATE_LIMIT):
                raise problem_of(trouble)
            kept = self._keys.find(key, request.path, body, now) if key else None
            if kept:
                headers |= {"Idempotent-Replayed": "true", "Original-Request": kept.request_id}
                return _response(kept.status, kept.body, request_id, headers)
            if trouble == Trouble.ERROR:
                raise problem_of(trouble)
            status, answer = 200, self._run(request, operation, body, request_id, key)
            if trouble == Trouble.ERROR_AFTER_COMMIT:
                raise problem_of(trouble)
        except Problem as problem:
            status, answer = problem.status, encode(problem.to_json(request_id))
            headers |= problem.headers
            if not problem.is_kept:
                return _response(status, answer, request_id, headers)
        if key:
            self._keys.keep(key, request.path, body, now, request_id, status, answer)
            headers["Original-Request"] = request_id
        if trouble == Trouble.CUT_AFTER_COMMIT:
            return _cut(request)
        return _response(status, answer, request_id, headers)

    def _run(
        self,
        request: web.Request,
        operation: Operation,
        body: str,
        request_id: str,
        key: str | None,
    ) -> bytes:
        self._world.wall.catch_up()
        text = request.query_string if request.method in _BODYLESS else body
        parameters = Parameters(parse_form(text))
        paths = read_paths(parameters)
        events = self._world.events
        events.request_id, events.idempotency_key = request_id, key
        try:
            row = operation.handle(Call(parameters, dict(request.match_info), request.path))
            return encode(expand(self._world, row, paths))
        finally:
            events.request_id = events.idempotency_key = None

    def _check_key(self, request: web.Request) -> None:
        """Raises Problem(401) unless the request carries a good test key."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Problem(
                401,
                "invalid_request_error",
                "You did not provide an API key. You need to provide your API key in the "
                "Authorization header, using Bearer auth.",
                is_kept=False,
            )
        wanted = self._world.settings.secret_key
        if wanted is None:
            is_good = key.startswith(("sk_test_", "rk_test_"))
        else:
            is_good = hmac.compare_digest(key.encode(), wanted.get_secret_value().encode())
        if not is_good:
            shown = f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 20 else "*" * len(key)
            raise Problem(
                401, "invalid_request_error", f"Invalid API Key provided: {shown}", is_kept=False
            )


def _check_version(version: str) -> None:
    if not _VERSION.fullmatch(version) or version < OLDEST_VERSION:
        raise bad_parameter(
            f"Invalid Stripe API version: {version}. The simulator speaks {OLDEST_VERSION} and "
            "newer.",
            None,
        )


def _new_request_id() -> str:
    return f"req_{secrets.token_hex(7)}"


def _response(
    status: int, body: bytes, request_id: str, headers: dict[str, str] | None = None
) -> web.Response:
    all_headers = {"Request-Id": request_id, **(headers or {})}
    return web.Response(
        status=status, body=body, headers=all_headers, content_type="application/json"
    )


def _cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)
