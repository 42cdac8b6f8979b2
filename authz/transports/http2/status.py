"""The header blocks of answers: constant, and without a dynamic table.

The first block of a connection announces that our dynamic table has size 0 from now on. So no
later SETTINGS_HEADER_TABLE_SIZE of the peer can be below the size that we use, and none needs an
answer.
"""

from dataclasses import dataclass
from typing import Final

GRPC_RESOURCE_EXHAUSTED: Final = 8
GRPC_UNIMPLEMENTED: Final = 12
GRPC_INTERNAL: Final = 13
GRPC_UNAVAILABLE: Final = 14

EMPTY_TABLE: Final = b"\x20"
_STATUS_200: Final = b"\x88"
_STATUS_NAME_INDEX: Final = b"\x08"
# Index 31, content-type: 15 in the prefix of four bits, and 16 more.
_CONTENT_TYPE_INDEX: Final = b"\x0f\x10"


def _text(value: bytes) -> bytes:
    """Return a string literal; a length below 127 takes one byte."""
    assert len(value) < 127
    return bytes((len(value),)) + value


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _text(name) + _text(value)


_GRPC_TYPE: Final = _CONTENT_TYPE_INDEX + _text(b"application/grpc")
RESPONSE_HEAD: Final = _STATUS_200 + _GRPC_TYPE
RESPONSE_TRAILERS: Final = _literal(b"grpc-status", b"0")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reply of headers only; `block` is its header block, with status and message."""

    block: bytes


def _refusal(status: int, message: bytes) -> Refusal:
    fields = ((b"grpc-status", str(status).encode()), (b"grpc-message", message))
    return Refusal(RESPONSE_HEAD + b"".join(_literal(*pair) for pair in fields))


NOT_GRPC: Final = Refusal(_STATUS_NAME_INDEX + _text(b"415"))
UNKNOWN_METHOD: Final = _refusal(GRPC_UNIMPLEMENTED, b"there is no such method")
COMPRESSED: Final = _refusal(GRPC_UNIMPLEMENTED, b"messages must not be compressed")
NOT_ONE_MESSAGE: Final = _refusal(GRPC_INTERNAL, b"a call takes exactly one message")
MESSAGE_TOO_LARGE: Final = _refusal(GRPC_RESOURCE_EXHAUSTED, b"the message is too large")
NO_ROOM: Final = _refusal(GRPC_RESOURCE_EXHAUSTED, b"too many messages are buffered")
OVERLOADED: Final = _refusal(GRPC_UNAVAILABLE, b"too many checks are under way")
FAULT: Final = _refusal(GRPC_INTERNAL, b"the check failed")
