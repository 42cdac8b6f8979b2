"""Writes answers to a peer as soon as its windows allow."""

from collections.abc import Callable, Iterable
from typing import Final

from authz.transports.http2.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_BYTES,
    MAX_FRAME_SIZE,
    MAX_WINDOW_BYTES,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
    frame,
    head,
)
from authz.transports.http2.outbox import Outbox
from authz.transports.http2.status import EMPTY_TABLE, RESPONSE_HEAD, RESPONSE_TRAILERS, Refusal
from authz.transports.http2.stream import Stream, Unsent
from authz.transports.transport import Answer

_UNCOMPRESSED: Final = b"\x00"
_TRAILERS_SIZE: Final = len(RESPONSE_TRAILERS)
_LAST_HEADERS: Final = END_HEADERS | END_STREAM


class Sender:
    """Writes answers within the peer's windows and frame size.

    `on_sent` is called with each stream whose answer was written to its end.
    """

    def __init__(self, outbox: Outbox, on_sent: Callable[[Stream, Answer], None]) -> None:
        self._outbox = outbox
        self._on_sent = on_sent
        self._window = DEFAULT_WINDOW_BYTES
        self._table_update = EMPTY_TABLE
        self.initial_window = DEFAULT_WINDOW_BYTES
        self.max_frame_bytes = DEFAULT_FRAME_BYTES
        self.is_paused = False

    def refuse(self, stream_id: int, refusal: Refusal) -> None:
        """Answer with headers alone."""
        block = self._first_block(refusal.block)
        self._outbox.write(frame(HEADERS, _LAST_HEADERS, stream_id, block))

    def answer(self, stream: Stream, answer: Answer, is_last: bool) -> None:
        """Answer with a message, or with as much of it as the windows have room for.

        Unless it is the last one, the answer waits for others of this turn of the event loop.
        """
        message = answer.payload
        size = len(message)
        prefix = _UNCOMPRESSED + size.to_bytes(4)
        block = self._first_block(RESPONSE_HEAD)
        headers = head(len(block), HEADERS, END_HEADERS, stream.id) + block
        size += len(prefix)
        if size > self._room(stream) or size > self.max_frame_bytes:
            self._outbox.write(headers)
            stream.unsent = Unsent(memoryview(prefix + message), answer)
            self.pump((stream,))
            return
        self._window -= size
        stream.send_window -= size
        body = head(size, DATA, 0, stream.id) + prefix
        send = self._outbox.write if is_last else self._outbox.gather
        send(b"".join((headers, body, message, _trailers(stream.id))))
        self._on_sent(stream, answer)

    def pump(self, streams: Iterable[Stream]) -> None:
        """Write the waiting answers for which there is room now, the oldest stream first."""
        for stream in list(streams):
            if stream.unsent is not None:
                unsent = stream.unsent
                while unsent.rest and (room := min(self._room(stream), self.max_frame_bytes)) > 0:
                    part, unsent.rest = unsent.rest[:room], unsent.rest[room:]
                    self._window -= len(part)
                    stream.send_window -= len(part)
                    self._outbox.write(head(len(part), DATA, 0, stream.id) + part)
                if not unsent.rest:
                    stream.unsent = None
                    self._outbox.write(_trailers(stream.id))
                    self._on_sent(stream, unsent.answer)

    def apply(self, pairs: list[tuple[int, int]], streams: Iterable[Stream]) -> None:
        """Apply the peer's settings. Raises ConnectionFault for impossible values."""
        for identifier, value in pairs:
            if identifier == INITIAL_WINDOW_SIZE:
                # A new initial window changes those of open streams too, even to below zero
                # (RFC 9113, 6.9.2).
                change = value - self.initial_window
                self.initial_window = value
                for stream in streams:
                    stream.send_window += change
                if value > MAX_WINDOW_BYTES or any(
                    s.send_window > MAX_WINDOW_BYTES for s in streams
                ):
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "a window is too large")
            elif identifier == MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_BYTES <= value <= MAX_FRAME_BYTES:
                    raise ConnectionFault(PROTOCOL_ERROR, "an impossible frame size")
                self.max_frame_bytes = value
            elif identifier == ENABLE_PUSH and value > 1:
                raise ConnectionFault(PROTOCOL_ERROR, "push is on or off")

    def widen(self, increment: int) -> None:
        """Widen the connection's window. Raises ConnectionFault above the maximum."""
        if not increment:
            raise ConnectionFault(PROTOCOL_ERROR, "a window must grow by something")
        self._window += increment
        if self._window > MAX_WINDOW_BYTES:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window is too large")

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """Widen one stream's window. Raises StreamFault above the maximum."""
        if not increment:
            raise StreamFault(PROTOCOL_ERROR, "a window must grow by something")
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW_BYTES:
            raise StreamFault(FLOW_CONTROL_ERROR, "the stream's window is too large")
        self.pump((stream,))

    def _room(self, stream: Stream) -> int:
        return 0 if self.is_paused else min(self._window, stream.send_window)

    def _first_block(self, block: bytes) -> bytes:
        if self._table_update:
            block = self._table_update + block
            self._table_update = b""
        return block


def _trailers(stream_id: int) -> bytes:
    return head(_TRAILERS_SIZE, HEADERS, _LAST_HEADERS, stream_id) + RESPONSE_TRAILERS
