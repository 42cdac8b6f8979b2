"""A small HTTP server for operators: health, readiness, metrics, and explanations of decisions.

It is never reachable through Envoy. An explanation says more than a client may know: it tells why
a credential is refused, and what its account has.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from authz.explain.explanation import Explanation
from authz.explain.requests import NotARequest, read_request
from authz.request import AuthRequest
from meter.listening import parse_address

SHUTDOWN_TIMEOUT_S: Final = 1.0
# The largest body of a request, in base64, and what is around it.
MAX_EXPLAINED_BYTES: Final = 48 * 2**20


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One thing that checks depend on. Without a required one, checks cannot be answered."""

    status: str
    is_ok: bool
    is_required: bool = True


HealthCheck = Callable[[], Awaitable[Mapping[str, ComponentHealth]]]
Explain = Callable[[AuthRequest], Awaitable[Explanation]]


class HealthServer:
    """Serves /healthz, /readyz, /metrics, and /explain where `explain` is given."""

    def __init__(
        self, read_health: HealthCheck, registry: CollectorRegistry, explain: Explain | None = None
    ) -> None:
        self._read_health = read_health
        self._registry = registry
        self._explain = explain
        self._is_draining = False
        application = web.Application(client_max_size=MAX_EXPLAINED_BYTES)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_post("/explain", self._explained)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S
        )

    async def start(self, listen: str) -> None:
        """Listen on `unix:/path` or `host:port`. Raises OSError or InvalidRequest."""
        address = parse_address(listen)
        await self._runner.setup()
        site: web.BaseSite
        if address.path is not None:
            site = web.UnixSite(self._runner, str(address.path))
        else:
            site = web.TCPSite(self._runner, address.host, address.port)
        await site.start()

    def start_draining(self) -> None:
        """Report from now on that no more checks should come."""
        self._is_draining = True

    async def stop(self) -> None:
        """Close the server."""
        await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        components = await self._read_health()
        is_ready = not self._is_draining and all(
            component.is_ok for component in components.values() if component.is_required
        )
        is_whole = is_ready and all(component.is_ok for component in components.values())
        status = "ready" if is_whole else "degraded" if is_ready else "not_ready"
        answer = {
            "status": "draining" if self._is_draining else status,
            "components": {name: {"status": found.status} for name, found in components.items()},
        }
        return web.json_response(answer, status=200 if is_ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )

    async def _explained(self, request: web.Request) -> web.Response:
        if self._explain is None:
            raise web.HTTPNotFound
        # A web page can make a browser send other content types to us without permission (CORS).
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        try:
            asked = read_request(await request.json())
        except NotARequest as error:
            return web.json_response({"error": str(error)}, status=400)
        except (ValueError, RecursionError):
            return web.json_response({"error": "the body is not JSON"}, status=400)
        return web.json_response((await self._explain(asked)).to_json())
