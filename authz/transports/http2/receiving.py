"""The receive windows of a connection; room is returned in large steps."""

from authz.transports.http2.frames import (
    DEFAULT_WINDOW_BYTES,
    FLOW_CONTROL_ERROR,
    ConnectionFault,
    window_update,
)
from authz.transports.http2.limits import ConnectionLimits


class ReceiveWindow:
    """The connection's window for DATA.

    The window is wide, and refilled as bytes arrive, not as they are used. Memory is bounded by the
    limit on buffered bytes instead: it refuses one message, where a closed window would stall all.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._most = limits.connection_window_bytes
        self._open = self._most

    def opening(self) -> bytes:
        """Return the frame that widens the window from its initial size."""
        return window_update(0, self._most - DEFAULT_WINDOW_BYTES)

    def take(self, size: int) -> bytes:
        """Count a DATA frame; return the bytes to write, mostly none. Raises ConnectionFault."""
        self._open -= size
        if self._open < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        if self._open > self._most // 2:
            return b""
        refill, self._open = self._most - self._open, self._most
        return window_update(0, refill)
