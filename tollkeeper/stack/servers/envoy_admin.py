"""Asks a running Envoy on its admin socket.

Errors: OSError (TimeoutError among them) when Envoy does not answer.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

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
        """Stop accepting connections, and wait for requests under way and for both logs.

        Each answer asks its client to open another connection. Returns False when requests
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
        """Drain as `drain` does; do nothing when Envoy has ended or does not answer."""
        with contextlib.suppress(OSError):
            await self.drain(grace_s)

    async def routes_to(self, address: str) -> bool:
        """Return whether health checks cover `unix:/path` or `host:port`, if that is known."""
        try:
            answer = await http("GET", "http://envoy/clusters?format=json", socket=self.socket)
        except OSError:
            return True
        for cluster in json.loads(answer.body).get("cluster_statuses", ()):
            for host in cluster.get("host_statuses", ()):
                place = host["address"]
                if "pipe" in place:
                    written = f"unix:{place['pipe']['path']}"
                else:
                    socket = place["socket_address"]
                    written = f"{socket['address']}:{socket['port_value']}"
                has_failed = host.get("health_status", {}).get("failed_active_health_check")
                if has_failed and written == address:
                    return False
        return True

    async def _await_quiet(self, deadline_s: float) -> bool:
        """Wait until no request was under way for QUIET_S; return False at the deadline."""
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
