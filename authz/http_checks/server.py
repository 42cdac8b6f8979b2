"""Runs uvicorn for checks over HTTP, beside the other servers of this process."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from authz.http_checks.application import TARGET, HttpForm
from authz.transports.transport import MAX_CONCURRENT_CHECKS
from meter.listening import BACKLOG, listening_socket, parse_address
from meter.process import uvicorn_beside

# Envoy's idle timeout is one hour by default. Ours is longer, so that Envoy closes first: where the
# server closes first, a check that Envoy has just sent fails.
KEEP_ALIVE_S: Final = 7_200


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which in addition passes on the request target unchanged."""

    def on_headers_complete(self) -> None:
        self.scope["extensions"] = {TARGET: {"raw": self.url}}
        super().on_headers_complete()


@contextlib.asynccontextmanager
async def serving(form: HttpForm, listen: str, grace_s: float) -> AsyncIterator[None]:
    """Answer at `unix:/path` or `host:port`; afterwards let checks under way finish.

    Raises OSError when it cannot listen there.
    """
    listening = listening_socket(listen)
    # Connections that arrive before uvicorn has started wait in the backlog.
    listening.listen(BACKLOG)
    config = uvicorn.Config(
        form,
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        # The peer stays the address that connected; our own rule reads the forwarding headers.
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=MAX_CONCURRENT_CHECKS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )
    async with uvicorn_beside.serving(config, listening, "http form"):
        try:
            yield
        finally:
            if path := parse_address(listen).path:
                path.unlink(missing_ok=True)
