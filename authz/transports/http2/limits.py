"""The limits of everything that a peer could make grow."""

from dataclasses import dataclass
from typing import Final

from authz.transports.transport import MAX_CONCURRENT_CHECKS, MAX_MESSAGE_BYTES

MESSAGE_PREFIX_BYTES: Final = 5
# Padding is given back at once, but has to fit beside the message until then.
PADDING_ROOM_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one server; all but the last two are per connection or per stream.

    Envoy's own idle timeout is one hour: ours is longer, because who closes first must not be
    the server, or a check that has just been sent would fail.
    """

    frame_bytes: int = 2**20
    header_block_bytes: int = 32 * 2**10
    header_list_bytes: int = 32 * 2**10
    header_frames: int = 32
    message_bytes: int = MAX_MESSAGE_BYTES
    concurrent_streams: int = 1_024
    connection_window_bytes: int = 256 * 2**20
    # Of messages that arrive or are being decided about.
    buffered_bytes: int = 512 * 2**20
    unsent_high_bytes: int = 2**20
    unsent_bytes: int = 64 * 2**20
    answers_remembered: int = 16_384
    resets_per_s: int = 10_000
    # Frames that ask for work and bring nothing: PING, SETTINGS, PRIORITY, empty DATA.
    idle_frames_per_s: int = 5_000
    handshake_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    idle_timeout_s: float = 7_200.0
    concurrent_checks: int = MAX_CONCURRENT_CHECKS
    connections: int = 256

    @property
    def stream_window_bytes(self) -> int:
        """Room for a whole message, so that none waits for our permission to go on."""
        return self.message_bytes + MESSAGE_PREFIX_BYTES + PADDING_ROOM_BYTES
