"""The limits of everything that a peer could make grow."""

from dataclasses import dataclass
from typing import Final

from authz.transports.transport import MAX_CONCURRENT_CHECKS, MAX_MESSAGE_BYTES

MESSAGE_PREFIX_BYTES: Final = 5
# The window of padding is given back at once, but padding must fit beside the message first.
PADDING_ROOM_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one server; all but the last two are per connection or per stream.

    Envoy's own idle timeout is one hour. Ours is longer, so that Envoy closes first: where the
    server closes first, a check that Envoy has just sent fails.
    """

    frame_bytes: int = 2**20
    header_block_bytes: int = 32 * 2**10
    header_list_bytes: int = 32 * 2**10
    header_frames: int = 32
    message_bytes: int = MAX_MESSAGE_BYTES
    concurrent_streams: int = 1_024
    connection_window_bytes: int = 256 * 2**20
    # Bytes of messages that arrive or are being decided about.
    buffered_bytes: int = 512 * 2**20
    unsent_high_bytes: int = 2**20
    unsent_bytes: int = 64 * 2**20
    answers_remembered: int = 16_384
    resets_per_s: int = 10_000
    # Frames that cause work without content: PING, SETTINGS, PRIORITY, empty DATA.
    idle_frames_per_s: int = 5_000
    handshake_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    idle_timeout_s: float = 7_200.0
    concurrent_checks: int = MAX_CONCURRENT_CHECKS
    connections: int = 256

    @property
    def stream_window_bytes(self) -> int:
        """Return room for a whole message, so that no message waits for a WINDOW_UPDATE."""
        return self.message_bytes + MESSAGE_PREFIX_BYTES + PADDING_ROOM_BYTES
