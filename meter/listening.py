"""Addresses that services listen on, `unix:/path` or `host:port`, and the sockets at them.

A Unix socket may be used by our own user and group only. The file system checks that, so the
socket must never exist with a wider mode, not even for a moment: hence the umask around `bind`.
"""

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meter.errors import InvalidRequest

BACKLOG: Final = 1_024
SOCKET_MODE: Final = 0o660
SOCKET_UMASK: Final = 0o777 & ~SOCKET_MODE
MAX_PORT: Final = 65_535
_SOCKET_SCHEME: Final = "unix:"
_LOOPBACKS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """The path of a Unix socket; or a host and a TCP port, where `path` is None.

    An IPv6 host stands without brackets. An empty host means all IPv4 addresses of the machine.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0

    @property
    def base_url(self) -> str:
        """The URL of an HTTP service that listens here, for clients on the same machine.

        A client connects to `path` where that is set; then the host in the URL has no meaning.
        """
        if self.path is not None:
            return "http://localhost"
        host = _LOOPBACKS.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def parse_address(text: str) -> ListenAddress:
    """Read `unix:/path` or `host:port`. Raises InvalidRequest for anything else."""
    if text.startswith(_SOCKET_SCHEME):
        return ListenAddress(Path(text.removeprefix(_SOCKET_SCHEME)))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > MAX_PORT:
        raise InvalidRequest(f"{text!r} is neither unix:/path nor host:port")
    return ListenAddress(None, host.removeprefix("[").removesuffix("]"), int(port))


def listening_socket(listen: str) -> socket.socket:
    """Return a socket that is bound to an address. Raises OSError, whose message has the address.

    A Unix socket that a killed process left behind is replaced.
    """
    try:
        address = parse_address(listen)
        if address.path is not None:
            return _bind_unix_socket(address.path)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except (OSError, InvalidRequest) as error:
        raise OSError(f"cannot listen on {listen}: {error}") from error


def _bind_unix_socket(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError("a file that is not a socket has this name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                # No process listens there any more.
                path.unlink()
            else:
                raise FileExistsError("another process listens there already")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(SOCKET_UMASK)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    path.chmod(SOCKET_MODE)
    bound.setblocking(False)
    return bound
