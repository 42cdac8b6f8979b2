"""TCP ports: whether one is free, and finding one that is."""

import errno
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

from tollkeeper.stack.errors import StackError

LOOPBACK = "127.0.0.1"
CHOSEN_PORTS = (20_000, 32_768)
_CHANCE = random.SystemRandom()
_RESERVATIONS = Path(tempfile.gettempdir()) / f"tollkeeper-ports-{os.getuid()}"
# Open files whose locks end with this process.
_RESERVED: list[int] = []


def require_free(address: str, port: int, variable: str) -> None:
    """Raise StackError, naming the variable that moves it, when the port is taken."""
    if not _is_free(address, port):
        raise StackError(
            f"Port {port} is in use by another program; set {variable} to a free one, "
            f"such as {variable}={free_port()}."
        )


def free_port() -> int:
    """Return a port that is free, and that no other process of this user is given meanwhile.

    A server may listen at it much later. So it is not one of those that the kernel gives to
    outgoing connections (from 32768 on Linux, 49152 elsewhere), and it stays reserved until this
    process ends.
    """
    while True:
        port = _CHANCE.randrange(*CHOSEN_PORTS)
        if _is_free(LOOPBACK, port) and _reserve(port):
            return port


def free_port_like(port: int | None) -> int:
    """The port of last time when it is still free, else another."""
    return port if port and _is_free(LOOPBACK, port) else free_port()


def _reserve(port: int) -> bool:
    """Reserve a port among the processes of this user; return whether it was not reserved yet."""
    try:
        _RESERVATIONS.mkdir(mode=0o700, exist_ok=True)
        file = os.open(_RESERVATIONS / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        # A reservation only makes a collision less likely; a port can be had without it.
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _RESERVED.append(file)
    return True


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # Connections of a moment ago in TIME_WAIT are no obstacle to a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except PermissionError:
            raise StackError(
                f"Port {port} needs more rights than you have; choose one above 1023."
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise StackError(
                f"Nothing can listen at {address}: {error.strerror}; set TOLLKEEPER_ADDRESS to an "
                "address of this machine."
            ) from None
    return True
