"""Sockets to listen on: Unix sockets that only our user and group may use, or TCP."""

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

BACKLOG: Final = 1_024


def listening_socket(listen: str) -> socket.socket:
    """A bound socket for `unix:/path` or `host:port`. Raises OSError, with the address in it."""
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


SOCKET_SCHEME: Final = "unix:"


SOCKET_MODE: Final = 0o660


SOCKET_UMASK: Final = 0o777 & ~SOCKET_MODE
