"""One call: a stream, from its headers to the end of its answer."""

from dataclasses import dataclass, field

from authz.transports.eager_task import EagerTask
from authz.transports.http2.limits import MESSAGE_PREFIX_BYTES
from authz.transports.http2.status import (
    COMPRESSED,
    MESSAGE_TOO_LARGE,
    NOT_ONE_MESSAGE,
    Refusal,
)
from authz.transports.transport import Answer


@dataclass(slots=True, eq=False)
class Unsent:
    """The part of an answer that the peer's windows hold back; the trailers follow it."""

    rest: memoryview
    answer: Answer


@dataclass(slots=True, eq=False)
class Stream:
    """`received` is the length-prefixed message so far. Windows are counted in bytes.

    `task` decides about the message, `unsent` is the answer that waits for room.
    """

    id: int
    began_s: float
    send_window: int
    receive_window: int
    buffered_bytes: int = 0
    received: bytearray = field(default_factory=bytearray, repr=False)
    task: EagerTask | None = None
    unsent: Unsent | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether the peer has sent its whole request."""
        return self.task is not None or self.unsent is not None

    def take_whole(self, content: bytes) -> bytes | None:
        """Return the message in the content of the only DATA frame; None where it is not whole."""
        if self.received or content[:1] != b"\0":
            return None
        size = len(content) - MESSAGE_PREFIX_BYTES
        if size < 0 or int.from_bytes(content[1:MESSAGE_PREFIX_BYTES]) != size:
            return None
        return content[MESSAGE_PREFIX_BYTES:]

    def fault(self, max_message_bytes: int) -> Refusal | None:
        """Return the fault of the message received so far, or None."""
        received = self.received
        if received and received[0]:
            return COMPRESSED
        if len(received) < MESSAGE_PREFIX_BYTES:
            return None
        size = int.from_bytes(received[1:MESSAGE_PREFIX_BYTES])
        if size > max_message_bytes:
            return MESSAGE_TOO_LARGE
        return NOT_ONE_MESSAGE if len(received) > MESSAGE_PREFIX_BYTES + size else None

    def take_message(self) -> bytes | None:
        """Return the one whole message, or None where there is none; the buffer is emptied."""
        received = self.received
        if len(received) < MESSAGE_PREFIX_BYTES:
            return None
        if len(received) != MESSAGE_PREFIX_BYTES + int.from_bytes(received[1:MESSAGE_PREFIX_BYTES]):
            return None
        with memoryview(received) as view:
            message = bytes(view[MESSAGE_PREFIX_BYTES:])
        self.received = bytearray()
        return message
