"""Listens, and stops with grace."""

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from authz.http2.connection import Connection
from authz.http2.intake import Intake
from authz.http2.limits import Limits
from authz.transport import SOCKET_MODE, SOCKET_SCHEME, SOCKET_UMASK, Check

BACKLOG: Final = 1_024
CANCEL_TIMEOUT_S: Final = 1.0


class Http2Transport:
    """Implements Transport with a small HTTP/2 server of our own."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._intake: Intake | None = None
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def start(self, check: Check, listen: str) -> None:
        """Listen, with a socket that only our user and group may use from its first moment."""
        intake = Intake(check, self._limits)
        listening = _listening_socket(listen)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(intake), sock=listening, backlog=BACKLOG
            )
        except OSError:
            listening.close()
            raise
        self._intake = intake
        if listen.startswith(SOCKET_SCHEME):
            self._path = Path(listen.removeprefix(SOCKET_SCHEME))

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, let calls under way finish, then close what is left."""
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
        tasks = [task for one in list(self._intake.connections) for task in one.abort()]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT_S)


def _listening_socket(listen: str) -> socket.socket:
    """A bound socket. Raises OSError, with the address in it."""
    try:
        if listen.startswith(SOCKET_SCHEME):
            return _unix_socket(Path(listen.removeprefix(SOCKET_SCHEME)))
        host, _, port = listen.rpartition(":")
        return socket.create_server((host.strip("[]"), int(port)), backlog=BACKLOG)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot listen on {listen}: {error}") from error


def _unix_socket(path: Path) -> socket.socket:
    _remove_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(SOCKET_UMASK)
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(before)
    path.chmod(SOCKET_MODE)
    made.setblocking(False)
    return made


def _remove_stale(path: Path) -> None:
    """A socket that nobody listens on is what a killed process left behind."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError("there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise FileExistsError("somebody listens there already")
