"""A strict, independent HTTP/2 client (hyper-h2) against one `Connection`, without sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from authz.transports.http2.connection import Connection
from authz.transports.http2.intake import Intake
from authz.transports.http2.limits import ConnectionLimits
from authz.transports.transport import PATH, Answer

REQUEST_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "authz"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
STEPS = 6


def grpc_message(payload: bytes) -> bytes:
    """A payload as gRPC frames it."""
    return b"\0" + len(payload).to_bytes(4) + payload


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; closes when told, as a socket would."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.written = bytearray()
        self.writes = 0
        self.unsent_bytes = 0
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closed:
            self.written += data
            self.writes += 1

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing to limit."""

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._loop.call_soon(self._connection.connection_lost, None)

    def abort(self) -> None:
        self.close()


@dataclass
class Checks:
    """The function behind the server: reverses, and waits where a gate is shut."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[bytes] = field(default_factory=list)
    taken_back: list[bytes] = field(default_factory=list)
    cancelled: int = 0

    async def check(self, payload: bytes) -> Answer:
        """Answer with the payload reversed."""
        self.seen.append(payload)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if payload == b"fault":
            raise RuntimeError("planted")
        return Answer(payload[::-1], lambda: self.taken_back.append(payload))


def open_checks() -> Checks:
    """Checks that answer at once."""
    checks = Checks()
    checks.gate.set()
    return checks


@dataclass
class Reply:
    """The frames that came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    is_ended: bool = False
    reset_code: int | None = None

    @property
    def status(self) -> str | None:
        """The gRPC status, wherever it stood."""
        return self.trailers.get("grpc-status") or self.headers.get("grpc-status")


class Wire:
    """One connection to the server, in bytes."""

    def __init__(
        self, check: Callable[[bytes], Awaitable[Answer]], limits: ConnectionLimits | None = None
    ) -> None:
        self.intake = Intake(check, limits or ConnectionLimits())
        self.connection = Connection(self.intake)
        self.transport = MemoryTransport(self.connection)
        self.connection.connection_made(self.transport)

    async def send(self, data: bytes) -> None:
        """Hand over bytes, unless the server has closed, and let tasks run."""
        if data and not self.transport.is_closed:
            # From the event loop, as a socket does: a check that begins is a task of its own.
            asyncio.get_running_loop().call_soon(self.connection.data_received, data)
        await settle()

    def take(self) -> bytes:
        """Return the bytes that were written since the last time."""
        written = bytes(self.transport.written)
        self.transport.written.clear()
        return written


class Peer(Wire):
    """hyper-h2 on the other end of the wire; it raises when the server breaks a rule."""

    def __init__(
        self, check: Callable[[bytes], Awaitable[Answer]], limits: ConnectionLimits | None = None
    ) -> None:
        super().__init__(check, limits)
        config = H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = H2Connection(config)
        self.replies: dict[int, Reply] = {}
        self.terminated: ConnectionTerminated | None = None
        self.events: list[Event] = []

    async def open(self) -> "Peer":
        """Exchange settings."""
        self.h2.initiate_connection()
        await self.flush()
        return self

    async def flush(self) -> None:
        """Send what h2 wants to send and read what comes back, until both are silent."""
        while True:
            await self.send(self.h2.data_to_send())
            written = self.take()
            if not written:
                return
            for event in self.h2.receive_data(written):
                self._note(event)

    def request(
        self, payload: bytes, headers: list[tuple[str, str]] | None = None, raw: bytes | None = None
    ) -> int:
        """Queue a whole call; its stream."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, headers or REQUEST_HEADERS)
        body = grpc_message(payload) if raw is None else raw
        while len(body) > self.h2.max_outbound_frame_size:
            self.h2.send_data(stream_id, body[: self.h2.max_outbound_frame_size])
            body = body[self.h2.max_outbound_frame_size :]
        self.h2.send_data(stream_id, body, end_stream=True)
        return stream_id

    async def ask(self, payload: bytes, **changes: object) -> Reply:
        """One whole call and its reply."""
        stream_id = self.request(payload, **changes)  # type: ignore[arg-type]
        await self.flush()
        return self.replies[stream_id]

    def _note(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
        elif isinstance(event, ResponseReceived):
            self._reply(event.stream_id).headers = _texts(event.headers)
        elif isinstance(event, TrailersReceived):
            self._reply(event.stream_id).trailers = _texts(event.headers)
        elif isinstance(event, DataReceived):
            self._reply(event.stream_id).body += event.data
        elif isinstance(event, StreamEnded):
            self._reply(event.stream_id).is_ended = True
        elif isinstance(event, StreamReset):
            self._reply(event.stream_id).reset_code = int(event.error_code)

    def _reply(self, stream_id: int | None) -> Reply:
        return self.replies.setdefault(stream_id or 0, Reply())


def _texts(headers: object) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}  # type: ignore[attr-defined]


async def settle() -> None:
    """Let tasks that can run do so."""
    for _ in range(STEPS):
        await asyncio.sleep(0)
