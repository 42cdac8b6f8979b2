"""One request on a connection of its own, over HTTP/1.1 or HTTP/2, that can be left anywhere."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

import h2.config
import h2.connection
import h2.events

READ_BYTES: Final = 65_536
# On, and for no time at all: what is closed like this is reset.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class ExchangeError(Exception):
    """The other side broke off, or said what is not HTTP."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers, names in lower case."""

    status: int
    headers: dict[str, str]


class Exchange(Protocol):
    """The operations that both protocols have. A fraction of 1 sends the whole."""

    async def send_head(self, fraction: float) -> None:
        """Send so much of the request's headers."""
        ...

    async def send_body(self, body: bytes, fraction: float) -> None:
        """Send so much of the body, after the whole of the headers."""
        ...

    def reply(self) -> AsyncIterator[Head | bytes]:
        """The head, then pieces of the body; ends with the reply, else raises ExchangeError."""
        ...

    async def leave(self, how: str) -> None:
        """Go away: `close` or `reset`."""
        ...


async def open_exchange(
    protocol: str, host: str, port: int, path: str, headers: list[tuple[str, str]], length: int
) -> Exchange:
    """A connection for one POST. Raises OSError when nobody listens."""
    reader, writer = await asyncio.open_connection(host, port)
    kind = _Http2 if protocol == "h2" else _Http1
    return kind(reader, writer, path, [*headers, ("content-length", str(length))])


class _Http1:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        headers: list[tuple[str, str]],
    ) -> None:
        self._reader, self._writer = reader, writer
        lines = [f"POST {path} HTTP/1.1", "host: chaos", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._head = ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def send_head(self, fraction: float) -> None:
        self._writer.write(self._head[: int(len(self._head) * fraction)])
        await self._writer.drain()

    async def send_body(self, body: bytes, fraction: float) -> None:
        self._writer.write(body[: int(len(body) * fraction)])
        await self._writer.drain()

    async def reply(self) -> AsyncIterator[Head | bytes]:
        try:
            head = await self._read_head()
            yield head
            async for piece in self._pieces(head):
                yield piece
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise ExchangeError(str(error)) from error

    async def _read_head(self) -> Head:
        text = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return Head(int(first.split(" ")[1]), headers)

    async def _pieces(self, head: Head) -> AsyncIterator[bytes]:
        if "chunked" not in head.headers.get("transfer-encoding", ""):
            yield await self._reader.readexactly(int(head.headers.get("content-length", "0")))
            return
        while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")

    async def leave(self, how: str) -> None:
        await _end(self._writer, how)


class _Http2:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        headers: list[tuple[str, str]],
    ) -> None:
        self._reader, self._writer = reader, writer
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "chaos")]
        self._headers = [*pseudo, (":path", path), *headers]
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._state = h2.connection.H2Connection(config)
        self._stream = 1

    async def send_head(self, fraction: float) -> None:
        self._state.initiate_connection()
        self._state.send_headers(self._stream, self._headers)
        await self._flush(fraction)

    async def send_body(self, body: bytes, fraction: float) -> None:
        part = body[: int(len(body) * fraction)]
        self._state.send_data(self._stream, part, end_stream=fraction >= 1)
        await self._flush(1)

    async def reply(self) -> AsyncIterator[Head | bytes]:
        while True:
            received = await self._reader.read(READ_BYTES)
            if not received:
                raise ExchangeError("closed in the middle")
            for event in self._state.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    yield _head(event)
                elif isinstance(event, h2.events.DataReceived):
                    length = event.flow_controlled_length or 0
                    self._state.acknowledge_received_data(length, self._stream)
                    yield event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    return
                elif isinstance(event, h2.events.StreamReset):
                    raise ExchangeError(f"reset: {event.error_code}")
            await self._flush(1)

    async def leave(self, how: str) -> None:
        if how == "reset":
            # Whatever state it is in by then: who goes away does not care.
            with contextlib.suppress(Exception):
                self._state.reset_stream(self._stream)
                await self._flush(1)
        await _end(self._writer, "close")

    async def _flush(self, fraction: float) -> None:
        waiting = self._state.data_to_send()
        self._writer.write(waiting[: int(len(waiting) * fraction)])
        await self._writer.drain()


def _head(event: h2.events.ResponseReceived) -> Head:
    headers = {_text(name): _text(value) for name, value in event.headers or ()}
    return Head(int(headers[":status"]), headers)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


async def _end(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "reset":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        writer.transport.abort()
    else:
        writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
