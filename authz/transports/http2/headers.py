"""Header blocks of requests: decoding, which has state, and the judgement of their fields."""

from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError

from authz.transports.http2.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)
from authz.transports.http2.limits import ConnectionLimits
from authz.transports.http2.status import NOT_GRPC, UNKNOWN_METHOD, Refusal
from authz.transports.transport import PATH

Fields = tuple[tuple[bytes, bytes], ...]

_GRPC: Final = b"application/grpc"
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED: Final = (b":method", b":scheme", b":path")
_OF_HTTP1: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)


class HeaderDecoder:
    """Decodes every header block of a connection, in order, including those of refused streams.

    A peer that asks the same thing again sends the same block, mostly references to the table.
    A block that left the table as it was means the same until another one changes the table:
    the last such block is remembered.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._decoder = Decoder(limits.header_list_bytes)
        self._last_block = b""
        self._last_fields: Fields = ()

    def decode(self, block: bytes) -> Fields:
        """Return the fields of a block. Raises ConnectionFault: a bad block destroys the state."""
        if block == self._last_block:
            return self._last_fields
        before = self._table()
        try:
            fields = tuple((bytes(k), bytes(v)) for k, v in self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header list is too large") from error
        except (HPACKError, ValueError, IndexError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, "a header block is broken") from error
        is_stateless = self._table() == before
        self._last_block, self._last_fields = (block, fields) if is_stateless else (b"", ())
        return fields

    def _table(self) -> tuple[object, ...]:
        table = self._decoder.header_table
        return (table.maxsize, *table.dynamic_entries)


def judge(fields: Fields) -> Refusal | None:
    """Return why a request is not one that we answer, or None when it is.

    Raises StreamFault when the fields are malformed (RFC 9113, 8.2 and 8.3): a proxy and a server
    that read such a request differently could be played against each other.
    """
    pseudo: dict[bytes, bytes] = {}
    content_types: list[bytes] = []
    has_regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if has_regular or name in pseudo or name not in _REQUEST_PSEUDO:
                raise StreamFault(PROTOCOL_ERROR, "a pseudo header is unknown, late or there twice")
            pseudo[name] = value
            continue
        has_regular = True
        if name != name.lower() or not name or name in _OF_HTTP1:
            raise StreamFault(PROTOCOL_ERROR, "a header does not belong into HTTP/2")
        if name == b"te" and value != b"trailers":
            raise StreamFault(PROTOCOL_ERROR, "te may only say trailers")
        if name == b"content-type":
            content_types.append(value.lower())
    if any(not pseudo.get(name) for name in _REQUIRED):
        raise StreamFault(PROTOCOL_ERROR, "a pseudo header is missing")
    # `application/grpc`, perhaps with a suffix (+proto) or a parameter.
    if (
        len(content_types) != 1
        or not content_types[0].startswith(_GRPC)
        or content_types[0][len(_GRPC) :][:1] not in (b"", b"+", b";")
    ):
        return NOT_GRPC
    if pseudo[b":method"] != b"POST" or pseudo[b":path"] != PATH.encode():
        return UNKNOWN_METHOD
    return None
