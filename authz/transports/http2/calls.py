"""The calls of one connection, from their opening to their answer or their end without one."""

import asyncio
from collections.abc import Callable, ValuesView
from typing import Final

import structlog

from authz.transports.eager_task import EagerTask
from authz.transports.http2 import frames, status
from authz.transports.http2.frames import ConnectionFault, StreamFault
from authz.transports.http2.headers import Fields, judge
from authz.transports.http2.intake import Intake
from authz.transports.http2.outbox import Outbox
from authz.transports.http2.sending import Sender
from authz.transports.http2.status import Refusal
from authz.transports.http2.stream import Stream
from authz.transports.http2.take_backs import TakeBacks
from authz.transports.transport import Answer

FENCE: Final = b"fence\0\0\0"

_log = structlog.get_logger(__name__)


class Calls:
    """Keeps the open streams, and the answers that may still be taken back.

    `on_idle` is called whenever the last open stream has ended.
    """

    def __init__(self, intake: Intake, outbox: Outbox, on_idle: Callable[[], None]) -> None:
        self._intake = intake
        self._limits = intake.limits
        self._outbox = outbox
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._take_backs = TakeBacks(intake.limits.answers_remembered)
        self._judged: tuple[Fields | None, Refusal | None] = (None, None)
        self._buffered_bytes = 0
        self.sender = Sender(outbox, self._answered)
        self.last_id = 0
        self.is_refusing = False

    @property
    def streams(self) -> ValuesView[Stream]:
        """Return the open streams, the oldest first."""
        return self._streams.values()

    def find(self, stream_id: int) -> Stream | None:
        """Return an open stream, or None for a stream that has ended.

        Raises ConnectionFault for a stream that was never opened.
        """
        stream = self._streams.get(stream_id)
        if stream is None and (stream_id > self.last_id or stream_id % 2 == 0):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "the stream was never opened")
        return stream

    def take_headers(self, stream_id: int, fields: Fields, ends_stream: bool) -> None:
        """Open a call with its headers; or, with its trailers, end its request."""
        if stream_id <= self.last_id:
            # These are trailers. The stream may have ended meanwhile: then they are ignored.
            if stream := self.find(stream_id):
                if stream.has_ended:
                    raise StreamFault(frames.STREAM_CLOSED, "HEADERS after the end")
                if not ends_stream:
                    raise StreamFault(frames.PROTOCOL_ERROR, "trailers must be the end")
                self._begin(stream)
            return
        if stream_id % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "even streams are not the client's")
        self.last_id = stream_id
        if self.is_refusing or len(self._streams) >= self._limits.concurrent_streams:
            raise StreamFault(frames.REFUSED_STREAM, "too many streams")
        # The decoder returns the same object for the same block, so that it is judged once.
        if fields is not self._judged[0]:
            self._judged = (fields, judge(fields))
        window = self._limits.stream_window_bytes
        stream = Stream(stream_id, self._loop.time(), self.sender.initial_window, window)
        self._streams[stream_id] = stream
        if refusal := self._judged[1]:
            self._refuse(stream, refusal, ends_stream)
        elif ends_stream:
            self._begin(stream)

    def take_data(self, stream_id: int, content: bytes, padding: int, ends_stream: bool) -> None:
        """Add a part of a request's message, which may be the last part."""
        stream = self.find(stream_id)
        if stream is None:
            return
        if stream.has_ended:
            raise StreamFault(frames.STREAM_CLOSED, "DATA after the end")
        stream.receive_window -= len(content)
        if stream.receive_window < padding:
            raise StreamFault(frames.FLOW_CONTROL_ERROR, "more DATA than the stream's window")
        stream.buffered_bytes += len(content)
        self._buffered_bytes += len(content)
        # An ordinary message is one frame, and is taken as it is.
        if (
            ends_stream
            and self._buffered_bytes <= self._limits.buffered_bytes
            and len(content) <= self._limits.message_bytes
            and (message := stream.take_whole(content)) is not None
        ):
            self._decide_about(stream, message)
            return
        stream.received += content
        if self._buffered_bytes > self._limits.buffered_bytes:
            self._refuse(stream, status.NO_ROOM, ends_stream)
        elif refusal := stream.fault(self._limits.message_bytes):
            self._refuse(stream, refusal, ends_stream)
        elif ends_stream:
            self._begin(stream)
        elif padding:
            # The window has room for one message only, so padding must not use it up.
            self._outbox.write(frames.window_update(stream_id, padding))

    def take_reset(self, stream_id: int) -> None:
        """End a call that the peer gave up before it had the whole answer."""
        if stream := self.find(stream_id):
            self._give_up(stream)
        elif take_back := self._take_backs.pop(stream_id):
            take_back()

    def reset(self, stream_id: int, code: int) -> None:
        """Reset a stream from our side."""
        self._outbox.write(frames.reset(stream_id, code))
        if stream := self._streams.get(stream_id):
            self._give_up(stream)

    def reset_slow(self, began_before_s: float) -> None:
        """Reset calls that wait for the peer: for its message, or for its window."""
        for stream in list(self._streams.values()):
            is_waiting = stream.task is None or stream.unsent is not None
            if is_waiting and stream.began_s < began_before_s:
                self.reset(stream.id, frames.CANCEL)

    def give_up_all(self) -> None:
        """End all calls, because the connection is gone.

        It is not known whether answers that were written have arrived, so these are not undone.
        """
        for stream in list(self._streams.values()):
            self._give_up(stream)

    def raise_fence(self) -> None:
        """Write a PING, whose acknowledgement shows that the peer has read the answers so far."""
        if self._take_backs.raise_fence():
            self._outbox.write(frames.frame(frames.PING, 0, 0, FENCE))

    def pass_fence(self) -> None:
        """Note that the peer has acknowledged the PING."""
        self._take_backs.pass_fence()

    def _begin(self, stream: Stream) -> None:
        """Start the decision about a request that is complete."""
        message = stream.take_message()
        if message is None:
            self._refuse(stream, status.NOT_ONE_MESSAGE, has_ended=True)
        else:
            self._decide_about(stream, message)

    def _decide_about(self, stream: Stream, message: bytes) -> None:
        if not self._intake.has_room:
            self._refuse(stream, status.OVERLOADED, has_ended=True)
            return
        self._intake.checks += 1
        stream.task = EagerTask(self._decide(stream, message), self._loop)
        stream.task.begin()

    async def _decide(self, stream: Stream, message: bytes) -> None:
        try:
            answer = await self._intake.check(message)
        except asyncio.CancelledError:
            self._refuse_open(stream)
            raise
        except Exception:
            # The outermost place of a check: its failure must not end other checks.
            _log.exception("check_raised")
            self._refuse_open(stream)
            return
        if self._streams.get(stream.id) is stream:
            self.sender.answer(stream, answer, is_last=len(self._streams) == 1)
        elif answer.take_back is not None:
            # The call was given up, and the check ended before the cancellation reached it.
            answer.take_back()

    def _refuse_open(self, stream: Stream) -> None:
        if self._streams.get(stream.id) is stream:
            self._refuse(stream, status.FAULT, has_ended=True)

    def _refuse(self, stream: Stream, refusal: Refusal, has_ended: bool) -> None:
        """Answer with a status alone; the rest of the request is not read."""
        self.sender.refuse(stream.id, refusal)
        if not has_ended:
            self._outbox.write(frames.reset(stream.id, frames.NO_ERROR))
        self._forget(stream)

    def _answered(self, stream: Stream, answer: Answer) -> None:
        if answer.take_back is not None:
            self._take_backs.remember(stream.id, answer.take_back)
            if self._take_backs.needs_fence:
                self.raise_fence()
        self._forget(stream)

    def _give_up(self, stream: Stream) -> None:
        self._forget(stream)
        if stream.task is not None:
            stream.task.cancel()
        if stream.unsent is not None and stream.unsent.answer.take_back is not None:
            # Its end was never written, so the peer cannot have the whole answer.
            stream.unsent.answer.take_back()

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.id]
        self._buffered_bytes -= stream.buffered_bytes
        if stream.task is not None:
            self._intake.checks -= 1
        if not self._streams:
            self._on_idle()
