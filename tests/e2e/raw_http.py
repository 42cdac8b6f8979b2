"""HTTP as it is typed: nothing is tidied on the way out, nothing is retried."""

import http.client
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.patience import WAIT_S

JSON = ("Content-Type", "application/json")

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, headers with lower-case names, and the whole body."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, once it is known to have OpenAI's shape."""
        assert self.headers["content-type"].startswith("application/json"), self.headers
        document = self.json()
        assert document.pop("type", "error") == "error", document
        assert list(document) == ["error"], document
        error: dict[str, Any] = document["error"]
        assert sorted(error) == ["code", "message", "param", "type"], error
        assert error["message"]
        assert error["type"]
        return error


class _OverSocket(http.client.HTTPConnection):
    """The same over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(self._path))


def send(
    origin: str,
    method: str,
    path: str,
    headers: Headers = (),
    body: bytes | None = None,
    unix_socket: Path | None = None,
) -> Reply:
    """One request on a connection of its own; `path` and every header go out as given."""
    where = urlsplit(origin)
    assert where.hostname is not None
    connection: http.client.HTTPConnection = (
        http.client.HTTPConnection(where.hostname, where.port, timeout=WAIT_S)
        if unix_socket is None
        else _OverSocket(unix_socket)
    )
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        if body is not None:
            _send_body(connection, body)
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, found, reply.read())
    finally:
        connection.close()


def _send_body(connection: http.client.HTTPConnection, body: bytes) -> None:
    try:
        connection.send(body)
    except (BrokenPipeError, ConnectionResetError):
        # A server may refuse before it has read everything; its answer is there to be read.
        return


def send_json(
    origin: str, method: str, path: str, content: object = None, headers: Headers = ()
) -> Reply:
    """The same with a JSON body, or none."""
    if content is None:
        return send(origin, method, path, headers)
    return send(origin, method, path, [*headers, JSON], json.dumps(content).encode())
