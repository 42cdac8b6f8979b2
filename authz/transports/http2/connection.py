"""One connection: cuts bytes into frames and acts on each frame."""

import asyncio
from dataclasses import dataclass
from typing import Final, cast

import structlog

from authz.transports.http2 import frames
from authz.transports.http2.calls import FENCE, Calls
from authz.transports.http2.frames import ConnectionFault, StreamFault
from authz.transports.http2.headers import HeaderDecoder
from authz.transports.http2.intake import Intake
from authz.transports.http2.outbox import Outbox
from authz.transports.http2.rate_limit import RateLimit
from authz.transports.http2.receiving import ReceiveWindow

DRAIN: Final = b"drain\0\0\0"
TICK_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 1.0
_ON_A_STREAM: Final = frozenset(
    {frames.DATA, frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.CONTINUATION}
)
_ON_NO_STREAM: Final = frozenset({frames.SETTINGS, frames.PING, frames.GOAWAY})

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Block:
    """A header block that is still arriving."""

    stream_id: int
    ends_stream: bool
    fragments: bytearray
    frames: int = 1


class Connection(asyncio.Protocol):
    """The server's side of RFC 9113, for one unary gRPC method.

    Nothing is raised to the loop: a broken rule of a stream resets it, a broken rule of the
    connection ends it with GOAWAY, and so does a fault of our own.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._limits = intake.limits
        self._loop = asyncio.get_running_loop()
        self._reader = frames.FrameReader(intake.limits.frame_bytes)
        self._decoder = HeaderDecoder(intake.limits)
        self._window = ReceiveWindow(intake.limits)
        self._resets = RateLimit(intake.limits.resets_per_s)
        self._idle_frames = RateLimit(intake.limits.idle_frames_per_s)
        self._block: _Block | None = None
        self._has_settings = False
        self._is_closing = False
        self._is_draining = False
        self._was_active = True
        self._idle_since_s = self._loop.time()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings; or end the connection when there are too many."""
        transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=self._limits.unsent_high_bytes)
        self._outbox = Outbox(transport, self._loop)
        self._calls = Calls(self._intake, self._outbox, self._on_idle)
        self._timer = self._loop.call_later(self._limits.handshake_timeout_s, self._tick)
        if not self._intake.admit(self):
            self._fail(frames.ENHANCE_YOUR_CALM, "too many connections")
            return
        self._outbox.write(
            frames.settings(
                (frames.MAX_CONCURRENT_STREAMS, self._limits.concurrent_streams),
                (frames.INITIAL_WINDOW_SIZE, self._limits.stream_window_bytes),
                (frames.MAX_FRAME_SIZE, self._limits.frame_bytes),
                (frames.MAX_HEADER_LIST_SIZE, self._limits.header_list_bytes),
            )
            + self._window.opening()
        )

    def data_received(self, data: bytes) -> None:
        """Act on the frames in the bytes that have arrived."""
        self._was_active = True
        try:
            for kind, flags, stream_id, payload in self._reader.feed(data):
                if self._is_closing:
                    return
                self._receive(kind, flags, stream_id, payload)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
        except Exception:
            # The outermost place of a connection: our own fault must not end other connections.
            _log.exception("http2_fault")
            self._fail(frames.INTERNAL_ERROR, "internal error")
        if self._outbox.unsent_bytes > self._limits.unsent_bytes:
            self._outbox.abort()

    def pause_writing(self) -> None:
        """Let answers wait, because the peer does not read."""
        self._calls.sender.is_paused = True

    def resume_writing(self) -> None:
        """Write the answers that wait, because the peer reads again."""
        self._calls.sender.is_paused = False
        self._calls.sender.pump(self._calls.streams)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the checks under way: the connection that asked is gone."""
        self._is_closing = True
        self._timer.cancel()
        self._intake.connections.discard(self)
        self._calls.give_up_all()
        if not self.closed.done():
            self.closed.set_result(None)

    def drain(self) -> None:
        """Ask for no more calls. The connection closes when those under way have ended."""
        if self._is_closing:
            self._outbox.abort()
        elif not self._has_settings:
            # No call was read yet, so the peer may send all of its calls to another instance.
            self._close(frames.NO_ERROR, "")
        elif not self._is_draining:
            self._is_draining = True
            # With the largest id, calls that are on their way are still accepted (RFC 9113, 6.8).
            self._outbox.write(frames.goaway(frames.MAX_STREAM_ID, frames.NO_ERROR))
            self._ping(DRAIN)

    def abort(self) -> list["asyncio.Future[None]"]:
        """Close now; return the ends of the checks that this cancels."""
        ends = [one.task.ended() for one in self._calls.streams if one.task is not None]
        self._calls.give_up_all()
        self._outbox.abort()
        return ends

    def _receive(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Act on one frame. Raises ConnectionFault; a StreamFault resets the stream here."""
        if not self._has_settings and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS must come first")
        # No other frame of any stream may stand between the frames of a header block
        # (RFC 9113, 6.10): the state of header compression depends on their order.
        if self._block is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block was interrupted")
        if (stream_id == 0 and kind in _ON_A_STREAM) or (stream_id and kind in _ON_NO_STREAM):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame is on the wrong stream")
        try:
            # The kinds that each call needs come first.
            if kind == frames.HEADERS:
                fragment = frames.header_fragment(flags, payload)
                ends_stream = bool(flags & frames.END_STREAM)
                if flags & frames.END_HEADERS:
                    self._take_block(stream_id, fragment, ends_stream)
                else:
                    self._block = _Block(stream_id, ends_stream, bytearray(fragment))
            elif kind == frames.DATA:
                if credit := self._window.take(len(payload)):
                    self._outbox.write(credit)
                content = frames.unpad(flags, payload)
                ends_stream = bool(flags & frames.END_STREAM)
                if not content and not ends_stream:
                    self._count_idle_frame()
                padding = len(payload) - len(content)
                self._calls.take_data(stream_id, content, padding, ends_stream)
            elif kind == frames.WINDOW_UPDATE:
                increment = frames.read_number(payload) & frames.MAX_WINDOW_BYTES
                if not stream_id:
                    self._calls.sender.widen(increment)
                    self._calls.sender.pump(self._calls.streams)
                elif stream := self._calls.find(stream_id):
                    self._calls.sender.widen_stream(stream, increment)
            elif kind == frames.RST_STREAM:
                frames.read_number(payload)
                if self._resets.is_exceeded():
                    raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many resets")
                self._calls.take_reset(stream_id)
            elif kind == frames.PING:
                self._receive_ping(flags, payload)
            elif kind == frames.SETTINGS:
                self._receive_settings(flags, payload)
            elif kind == frames.CONTINUATION:
                self._receive_continuation(flags, stream_id, payload)
            elif kind == frames.PUSH_PROMISE:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a client must not push")
            elif kind == frames.PRIORITY and len(payload) != frames.PRIORITY_BYTES:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PRIORITY has a wrong length")
            elif kind != frames.GOAWAY:
                # PRIORITY, or a kind that is not known: to be ignored, but not without a limit.
                self._count_idle_frame()
            # After GOAWAY the peer opens no more streams, and closes when it has its answers.
        except StreamFault as fault:
            self._calls.reset(stream_id, fault.code)

    def _receive_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.fragments += payload
        block.frames += 1
        if block.frames > self._limits.header_frames:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a header block has too many frames")
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(stream_id, bytes(block.fragments), block.ends_stream)

    def _take_block(self, stream_id: int, block: bytes, ends_stream: bool) -> None:
        if len(block) > self._limits.header_block_bytes:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a header block is too large")
        # Each block is decoded, even for a stream that is refused: the next block builds on the
        # state that this one leaves.
        fields = self._decoder.decode(block)
        self._calls.take_headers(stream_id, fields, ends_stream)

    def _receive_settings(self, flags: int, payload: bytes) -> None:
        pairs = frames.read_settings(payload)
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "an acknowledgement is empty")
            return
        self._count_idle_frame()
        self._has_settings = True
        self._calls.sender.apply(pairs, self._calls.streams)
        self._outbox.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._calls.sender.pump(self._calls.streams)

    def _receive_ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != frames.PING_BYTES:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING has a wrong length")
        if not flags & frames.ACK:
            self._count_idle_frame()
            self._outbox.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == FENCE:
            self._calls.pass_fence()
        elif payload == DRAIN and self._is_draining:
            self._calls.is_refusing = True
            if not self._calls.streams:
                self._close(frames.NO_ERROR, "")

    def _count_idle_frame(self) -> None:
        if self._idle_frames.is_exceeded():
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _on_idle(self) -> None:
        """Ask a peer, while draining, whether it has read all answers and resets none."""
        if self._calls.is_refusing and not self._is_closing:
            self._ping(DRAIN)

    def _ping(self, payload: bytes) -> None:
        self._outbox.write(frames.frame(frames.PING, 0, 0, payload))

    def _tick(self) -> None:
        """Do the work that is due by time alone."""
        now_s = self._loop.time()
        if not self._has_settings:
            self._fail(frames.PROTOCOL_ERROR, "no SETTINGS came")
            return
        if self._was_active or self._calls.streams:
            self._was_active, self._idle_since_s = False, now_s
        elif now_s - self._idle_since_s > self._limits.idle_timeout_s:
            self.drain()
        self._calls.reset_slow(now_s - self._limits.request_timeout_s)
        self._calls.raise_fence()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _fail(self, code: int, reason: str) -> None:
        if not self._is_closing:
            _log.warning("http2_connection_ended", code=code, reason=reason)
            self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        """Send GOAWAY and close; abort after a moment where the peer does not read."""
        self._is_closing = True
        self._outbox.write(frames.goaway(self._calls.last_id, code, reason))
        self._calls.give_up_all()
        self._outbox.close()
        self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._outbox.abort)
