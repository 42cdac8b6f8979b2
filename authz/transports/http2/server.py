"""The transport: listens, and lets calls finish before it stops."""

import asyncio
from pathlib import Path
from typing import Final

from authz.transports.http2.connection import Connection
from authz.transports.http2.intake import Intake
from authz.transports.http2.limits import ConnectionLimits
from authz.transports.transport import Check
from meter.listening import BACKLOG, listening_socket, parse_address

CANCEL_TIMEOUT_S: Final = 1.0


class Http2Transport:
    """Implements Transport with our own small HTTP/2 server."""

    def __init__(self, limits: ConnectionLimits | None = None) -> None:
        self._limits = limits or ConnectionLimits()
        self._intake: Intake | None = None
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def start(self, check: Check, listen: str) -> None:
        """Listen; a Unix socket has its final mode from its first moment."""
        intake = Intake(check, self._limits)
        listening = listening_socket(listen)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(intake), sock=listening, backlog=BACKLOG
            )
        except OSError:
            listening.close()
            raise
        self._intake = intake
        self._path = parse_address(listen).path

    async def stop(self, grace_s: float) -> None:
        """Accept no more connections, let calls under way finish, then close the rest."""
        if self._server is None or self._intake is None:
            return
        self._server.close()
        self._intake.is_draining = True
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        connections = list(self._intake.connections)
        for connection in connections:
            connection.drain()
        if connections:
            await asyncio.wait([one.closed for one in connections], timeout=grace_s)
        ends = [end for one in list(self._intake.connections) for end in one.abort()]
        if ends:
            await asyncio.wait(ends, timeout=CANCEL_TIMEOUT_S)
