"""Asks a running Envoy on its admin socket.

Errors: OSError (TimeoutError among them) when Envoy does not answer.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollkeeper.envoy_config import LISTENER_DRAIN_S
from tollkeeper.stack.supervision.probes import http

# Both logs are written at the end of a request: the file after 0.1 s, the stream after 0.25 s.
LOG_FLUSH_S = 0.6
POLL_S = 0.05
QUIET_S = 0.3
ACTIVE = "http.edge.downstream_rq_active"


@dataclass(frozen=True, slots=True)
class EnvoyAdmin:
    """One Envoy, by its admin socket."""

    socket: Path

    async def active_requests(self) -> int:
        """Return the number of client requests under way."""
        answer = await http("GET", f"http://envoy/stats?filter=^{ACTIVE}$", socket=self.socket)
        _, _, count = answer.body.decode().partition(": ")
        # Before the first request there is no such number.
        return int(count or 0)

    async def drain(self, grace_s: float) -> bool:
        """Take no more connections, and wait for the requests under way and for both logs.

        Clients are told with each answer to open another connection. Returns False when requests
        are still under way after `grace_s`.
        """
        deadline_s = time.monotonic() + grace_s
        # First the word to the clients, while the listener is still open for their next
        # connection; then the listener. `graceful` alone would do the second and end Envoy.
        await self._post("drain_listeners?graceful&skip_exit")
        await asyncio.sleep(min(LISTENER_DRAIN_S, grace_s))
        await self._post("drain_listeners")
        is_quiet = await self._await_quiet(deadline_s)
        await asyncio.sleep(LOG_FLUSH_S)
        return is_quiet

    async def drain_if_there(self, grace_s: float) -> None:
        """The same for an Envoy that may be gone or hang: then there is nothing to wait for."""
        with contextlib.suppress(OSError):
            await self.drain(grace_s)

    async def routes_to(self, address: str) -> bool:
        """Return whether health checks cover `unix:/path` or `host:port`, if that is known."""
        try:
            answer = await http("GET", "http://envoy/clusters?format=json", socket=self.socket)
        except OSError:
            return True
        return address not in set(_unwell(json.loads(answer.body)))

    async def _await_quiet(self, deadline_s: float) -> bool:
        """Until no request was under way for a while, or the deadline."""
        quiet_since_s: float | None = None
        while (now_s := time.monotonic()) < deadline_s:
            if await self.active_requests():
                quiet_since_s = None
            elif quiet_since_s is None:
                quiet_since_s = now_s
            elif now_s - quiet_since_s > QUIET_S:
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def _post(self, path: str) -> None:
        await http("POST", f"http://envoy/{path}", socket=self.socket)


def _unwell(document: dict[str, Any]) -> Iterator[str]:
    """The addresses that failed the last checks of their health."""
    for cluster in document.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()):
            if host.get("health_status", {}).get("failed_active_health_check"):
                yield _written(host["address"])


def _written(address: dict[str, Any]) -> str:
    if "pipe" in address:
        return f"unix:{address['pipe']['path']}"
    socket = address["socket_address"]
    return f"{socket['address']}:{socket['port_value']}"
