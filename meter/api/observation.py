"""Observation of requests: one log line and metrics for each, and no traceback to callers."""

import uuid
from typing import TYPE_CHECKING, Final

import structlog
from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import MutableHeaders

from meter.api.problems import internal_error, render

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from meter.clock import Clock

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
# Monitoring asks these every second: no log line for each request.
_QUIET_ROUTES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
UNMATCHED: Final = "unmatched"
STATUS_IF_CUT: Final = 499

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ApiMetrics:
    """The number of requests and their durations, by route template."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "tollkeeper_api_requests",
            "Requests to the meter API",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "tollkeeper_api_request_seconds",
            "Seconds until a request to the meter API was answered",
            ("method", "route"),
            registry=registry,
        )


class RequestObserver:
    """The outermost ASGI middleware: measures, logs, and answers 500 for uncaught exceptions."""

    def __init__(self, app: "ASGIApp", clock: "Clock", metrics: ApiMetrics) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(send)
        started_s = self._clock.monotonic_s()
        try:
            await self._app(scope, receive, exchange.send)
        except Exception:
            _log.exception("api_request_failed", request_id=exchange.request_id)
            if exchange.status is None:
                await render(Request(scope), internal_error())(scope, receive, exchange.send)
        finally:
            self._record(scope, exchange, self._clock.monotonic_s() - started_s)

    def _record(self, scope: "Scope", exchange: "_Exchange", seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", UNMATCHED)
        status = exchange.status or STATUS_IF_CUT
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        if route not in _QUIET_ROUTES:
            _log.info(
                "api_request",
                request_id=exchange.request_id,
                method=method,
                route=route,
                status=status,
                took_ms=round(seconds * 1000, 1),
            )


class _Exchange:
    """The reply to one request, observed while it is sent."""

    def __init__(self, send: "Send") -> None:
        self._send = send
        self.request_id = uuid.uuid4().hex
        self.status: int | None = None

    async def send(self, message: "Message") -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            # Replies contain money and keys. A route whose replies may be cached sets the header.
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)
