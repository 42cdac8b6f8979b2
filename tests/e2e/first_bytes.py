"""Times the arrival of the first byte of a stream, on a plain socket that stays open."""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.patience import WAIT_S

RECEIVE_BYTES = 65_536
# The upstream's streams begin with this comment; the last chunk is empty.
FIRST = b": OPENROUTER"
LAST = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Line:
    """One connection kept open, asking the same stream again and again."""

    origin: str
    path: str
    key: str = field(repr=False)
    _socket: socket.socket = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where = urlsplit(self.origin)
        self._socket = socket.create_connection((where.hostname, where.port), WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def first_and_last_ms(self, body: Mapping[str, object]) -> tuple[float, float]:
        """Return when the first and the last byte of the stream came, after the request."""
        began = time.perf_counter()
        received, first_ms = self._ask(body)
        self._receive_until(received, LAST)
        return first_ms, (time.perf_counter() - began) * 1000

    def leave_after_first_byte(self, body: Mapping[str, object]) -> None:
        """Hang up in the middle of a stream."""
        self._ask(body)
        self.close()

    def leave_unanswered(self, body: Mapping[str, object], after_s: float) -> None:
        """Hang up before anything has come back."""
        self._socket.sendall(self._request(body))
        time.sleep(after_s)
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _request(self, body: Mapping[str, object]) -> bytes:
        content = json.dumps(body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: tollkeeper\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def _ask(self, body: Mapping[str, object]) -> tuple[bytes, float]:
        request = self._request(body)
        began = time.perf_counter()
        self._socket.sendall(request)
        received = self._receive_until(b"", FIRST)
        took_ms = (time.perf_counter() - began) * 1000
        assert received.startswith(b"HTTP/1.1 200"), received[:200]
        return received, took_ms

    def _receive_until(self, received: bytes, mark: bytes) -> bytes:
        while mark not in received:
            more = self._socket.recv(RECEIVE_BYTES)
            if not more:
                raise ConnectionError(f"the line broke after {received[:500]!r}")
            received += more
        return received
