"""TCP ports: whether one is free, and finding one that is."""

import errno
import socket

from tollkeeper.stack.errors import StackError

LOOPBACK = "127.0.0.1"


def demand_free(address: str, port: int, variable: str) -> None:
    """Raise StackError, naming the variable that moves it, when the port is taken."""
    if not _is_free(address, port):
        raise StackError(
            f"Port {port} is in use by another program; set {variable} to a free one, "
            f"such as {variable}={free_port()}."
        )


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
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
