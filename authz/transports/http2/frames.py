"""Frames of RFC 9113: their numbers, a reader that cuts bytes into frames, and writers."""

import struct
from collections.abc import Iterator
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES: Final = 9
MAX_STREAM_ID: Final = 2**31 - 1
MAX_WINDOW_BYTES: Final = 2**31 - 1
DEFAULT_WINDOW_BYTES: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
MAX_FRAME_BYTES: Final = 2**24 - 1
PING_BYTES: Final = 8

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

_HEADER: Final = struct.Struct(">HBBBL")
_SETTING: Final = struct.Struct(">HL")
PRIORITY_BYTES: Final = 5

Frame = tuple[int, int, int, bytes]


class ConnectionFault(Exception):
    """The peer broke a rule of the connection, which ends with GOAWAY and `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamFault(Exception):
    """The peer broke a rule of one stream, which is reset with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class FrameReader:
    """Cuts the incoming bytes into frames, however they were split on the way."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._unread = bytearray()
        self._has_preface = False

    def feed(self, received: bytes) -> Iterator[Frame]:
        """Yield the complete frames: kind, flags, stream, payload. Raises ConnectionFault."""
        # In the usual case nothing is left over, and the bytes are cut where they are.
        unread: bytes | bytearray = received
        if self._unread or not self._has_preface:
            self._unread += received
            unread = self._unread
            if not self._has_preface:
                beginning = unread[: len(PREFACE)]
                if not PREFACE.startswith(beginning):
                    raise ConnectionFault(PROTOCOL_ERROR, "this is not HTTP/2")
                if len(beginning) < len(PREFACE):
                    return
                del self._unread[: len(PREFACE)]
                self._has_preface = True
        at = 0
        end = len(unread)
        while end - at >= FRAME_HEADER_BYTES:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(unread, at)
            size = high << 8 | low
            if size > self._max_frame_bytes:
                raise ConnectionFault(FRAME_SIZE_ERROR, "a frame is too large")
            start = at + FRAME_HEADER_BYTES
            if end - start < size:
                break
            at = start + size
            yield kind, flags, stream_id & MAX_STREAM_ID, bytes(unread[start:at])
        if unread is self._unread:
            del self._unread[:at]
        elif at < end:
            self._unread += unread[at:]


def unpad(flags: int, payload: bytes) -> bytes:
    """Return a payload without its padding. Raises ConnectionFault where all of it is padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "a frame is all padding")
    return payload[1 : len(payload) - payload[0]]


def header_fragment(flags: int, payload: bytes) -> bytes:
    """Return the part of a HEADERS frame that belongs to the header block."""
    fragment = unpad(flags, payload)
    if not flags & HAS_PRIORITY:
        return fragment
    if len(fragment) < PRIORITY_BYTES:
        raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS are too short for their priority")
    return fragment[PRIORITY_BYTES:]


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return identifiers and values. Raises ConnectionFault for an impossible length."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS have a wrong length")
    return list(_SETTING.iter_unpack(payload))


def read_number(payload: bytes) -> int:
    """Return the one 32-bit number of RST_STREAM and WINDOW_UPDATE."""
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a frame of one number has a wrong length")
    return int.from_bytes(payload)


def head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return the nine bytes before a payload of `size` bytes."""
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return head(len(payload), kind, flags, stream_id) + payload


def reset(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4))


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4))


def goaway(last_stream_id: int, code: int, reason: str = "") -> bytes:
    """Return a GOAWAY frame; the reason is for the peer's log."""
    return frame(GOAWAY, 0, 0, last_stream_id.to_bytes(4) + code.to_bytes(4) + reason.encode())


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in pairs))
