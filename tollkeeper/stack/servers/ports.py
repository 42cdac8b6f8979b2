"""TCP ports: whether one is free, and finding one that is."""

import errno
import random
import socket

from tollkeeper.stack.errors import StackError

LOOPBACK = "127.0.0.1"
CHOSEN_PORTS = (20_000, 32_768)


def require_free(address: str, port: int, variable: str) -> None:
    """Raise StackError, naming the variable that moves it, when the port is taken."""
    if not _is_free(address, port):
        raise StackError(
            f"Port {port} is in use by another program; set {variable} to a free one, "
            f"such as {variable}={free_port()}."
        )


def free_port() -> int:
    """Return a port that was free a moment ago.

    A server may listen at it much later. So it is not one of those that the kernel gives to
    outgoing connections (from 32768 on Linux, 49152 elsewhere), and two stacks that start
    together hardly ever choose the same.
    """
    while True:
        port = random.randrange(*CHOSEN_PORTS)
        if _is_free(LOOPBACK, port):
            return port


def free_port_like(port: int | None) -> int:
    """The port of last time when it is still free, else another."""
    return port if port and _is_free(LOOPBACK, port) else free_port()


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
