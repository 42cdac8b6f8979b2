"""`python -m authz`: put the parts together, answer checks until SIGTERM, drain, leave."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from typing import Final

import structlog
import uvloop
from pydantic import ValidationError

from authz.application import Application, open_application
from authz.http_checks.application import HttpForm
from authz.http_checks.server import serving
from authz.settings import Settings
from authz.transports.grpc_aio import GrpcAioTransport
from authz.transports.http2 import Http2Transport
from authz.transports.transport import Transport
from meter.errors import InvalidRequest
from meter.process.startup_freeze import spare_long_lived_objects
from meter.process.stopping import stop_event
from meter.process.telemetry import configure_logs

EXIT_MISCONFIGURED: Final = 2

_log = structlog.get_logger(__name__)


async def serve(settings: Settings, transport: Transport, stopping: asyncio.Event) -> None:
    """Answer checks until `stopping` is set, then drain."""
    async with open_application(settings) as application:
        await application.health.start(settings.authz_health_listen)
        async with (
            _listening(settings, transport, application),
            _listening_for_http(settings, application),
        ):
            spare_long_lived_objects()
            _log.info("authz_started", listen=settings.authz_listen)
            await stopping.wait()
            _log.info("authz_draining")
            application.health.start_draining()
    _log.info("authz_stopped")


@contextlib.asynccontextmanager
async def _listening(
    settings: Settings, transport: Transport, application: Application
) -> AsyncIterator[None]:
    await transport.start(application.service.check, settings.authz_listen)
    try:
        yield
    finally:
        await transport.stop(settings.authz_drain_grace_s)


@contextlib.asynccontextmanager
async def _listening_for_http(settings: Settings, application: Application) -> AsyncIterator[None]:
    """Serve checks over HTTP as well, where the settings ask for it."""
    if settings.authz_http_listen is None:
        yield
        return
    form = HttpForm(application.service, settings.authz_max_body_bytes)
    async with serving(form, settings.authz_http_listen, settings.authz_drain_grace_s):
        yield


async def _serve_until_signal(settings: Settings) -> None:
    transport = Http2Transport() if settings.authz_transport == "http2" else GrpcAioTransport()
    await serve(settings, transport, stop_event(signal.SIGTERM, signal.SIGINT))


def main() -> int:
    """Run the service; returns the exit code."""
    try:
        settings = Settings.from_environment()
    except ValidationError as error:
        # Only names and reasons: what was given may be a secret.
        for fault in error.errors(include_input=False, include_url=False):
            name = f"TOLLKEEPER_{fault['loc'][0]}".upper()
            sys.stderr.write(f"authz: {name}: {fault['msg']}\n")
        return EXIT_MISCONFIGURED
    configure_logs(settings.log_format, settings.authz_log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_until_signal(settings))
    except (InvalidRequest, OSError) as error:
        _log.error("authz_cannot_start", reason=str(error))
        return EXIT_MISCONFIGURED
    return 0


if __name__ == "__main__":
    sys.exit(main())
