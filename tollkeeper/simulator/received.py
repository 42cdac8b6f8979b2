"""The latest requests as they arrived, byte for byte, so that tests can look at them."""

import base64
import hashlib
from collections import deque
from dataclasses import dataclass

from aiohttp import web

REQUESTS_KEPT = 2_000
BODIES_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One request. The authorization value is kept as its SHA-256 only."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    authorization_sha256: str | None
    body: bytes

    def to_json(self) -> dict[str, object]:
        return {
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "authorization_sha256": self.authorization_sha256,
            "body_base64": base64.b64encode(self.body).decode(),
        }


class ReceivedRequests:
    """A bounded memory of requests, by number and by bytes; the newest always stays."""

    def __init__(self) -> None:
        self._requests: deque[Received] = deque()
        self._body_bytes = 0
        self.count = 0

    def add(self, request: web.BaseRequest, body: bytes) -> None:
        headers: list[tuple[str, str]] = []
        digest = None
        for raw_name, raw_value in request.raw_headers:
            if raw_name.lower() == b"authorization":
                digest = hashlib.sha256(raw_value).hexdigest()
            else:
                headers.append((raw_name.decode("latin-1"), raw_value.decode("latin-1")))
        self._requests.append(
            Received(request.method, request.raw_path, tuple(headers), digest, body)
        )
        self._body_bytes += len(body)
        self.count += 1
        # The newest request always stays.
        while len(self._requests) > 1 and (
            len(self._requests) > REQUESTS_KEPT or self._body_bytes > BODIES_KEPT_BYTES
        ):
            self._body_bytes -= len(self._requests.popleft().body)

    def latest(self, limit: int) -> list[Received]:
        """The last ``limit`` requests, oldest first."""
        return list(self._requests)[-limit:]

    def clear(self) -> None:
        self._requests.clear()
        self._body_bytes = 0
        self.count = 0
