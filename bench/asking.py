"""Asks checks as Envoy does, over one HTTP/2 connection: the other process of `bench.deciding`.

It reads the checks from its first line of input, in base64. Each further line names how many turns
to ask, and how many checks at once; a line is written when all were answered. Run as a program, it
imports nothing of ours.
"""

import base64
import socket
import struct
import sys
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_WINDOW_UPDATE: Final = 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WIDEST: Final = 2**30
_HEADER_BYTES: Final = 9


class _Peer:
    def __init__(self, path: str, payloads: list[bytes]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._payloads = payloads
        self._stream_id = 1
        self._asked = 0
        self._received = b""
        window = struct.pack(">HL", 4, _WIDEST)
        self._socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, window)
            + _frame(_WINDOW_UPDATE, 0, 0, _WIDEST.to_bytes(4))
        )

    def ask(self, at_once: int) -> None:
        frames = []
        for _ in range(at_once):
            payload = self._payloads[self._asked % len(self._payloads)]
            frames.append(call_frames(self._stream_id, payload))
            self._stream_id += 2
            self._asked += 1
        self._socket.sendall(b"".join(frames))
        left, data_bytes = at_once, 0
        while left:
            received = self._received + self._socket.recv(2**18)
            at = 0
            while len(received) - at >= _HEADER_BYTES:
                size = int.from_bytes(received[at : at + 3])
                kind, flags = received[at + 3], received[at + 4]
                end = at + _HEADER_BYTES + size
                if len(received) < end:
                    break
                if kind == _DATA:
                    data_bytes += size
                elif kind == _PING and not flags & _ACK:
                    payload = received[at + _HEADER_BYTES : end]
                    self._socket.sendall(_frame(_PING, _ACK, 0, payload))
                elif kind == _HEADERS and flags & _END_STREAM:
                    left -= 1
                at = end
            self._received = received[at:]
        if not data_bytes:
            raise SystemExit("no check was answered with a message")
        self._socket.sendall(_frame(_WINDOW_UPDATE, 0, 0, data_bytes.to_bytes(4)))


def call_frames(stream_id: int, payload: bytes) -> bytes:
    """Return the frames of one call: its headers, and its message in one piece."""
    message = b"\0" + len(payload).to_bytes(4) + payload
    headers = _frame(_HEADERS, _END_HEADERS, stream_id, _BLOCK)
    return headers + _frame(_DATA, _END_STREAM, stream_id, message)


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


# POST and http, and the other headers as Envoy sends them with each check.
_BLOCK: Final = b"\x83\x86" + b"".join(
    _literal(name, value)
    for name, value in (
        (b":path", b"/envoy.service.auth.v3.Authorization/Check"),
        (b":authority", b"authz"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"2000m"),
    )
)


def main() -> None:
    """Ask what the input says, until it ends."""
    _, path = sys.argv
    peer = _Peer(path, [base64.b64decode(one) for one in sys.stdin.readline().split()])
    print("connected", flush=True)
    for line in sys.stdin:
        turns, at_once = map(int, line.split())
        for _ in range(turns):
            peer.ask(at_once)
        print("answered", flush=True)


if __name__ == "__main__":
    main()
