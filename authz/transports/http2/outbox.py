"""Writes to one connection; answers of the same turn of the event loop leave together."""

import asyncio


class Outbox:
    """Keeps the order of everything that is written.

    A commit of holds answers several checks in one turn of the event loop. Written one by one, each
    answer would cost a call to the kernel, and would wake Envoy for itself.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes] = []

    def gather(self, part: bytes) -> None:
        """Write in the next turn of the loop, together with what is gathered until then."""
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(part)

    def write(self, part: bytes) -> None:
        """Write now, behind what is gathered."""
        self.flush()
        self._transport.write(part)

    def flush(self) -> None:
        """Write what is gathered."""
        if self._gathered:
            parts, self._gathered = b"".join(self._gathered), []
            self._transport.write(parts)

    @property
    def unsent_bytes(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        return sum(map(len, self._gathered)) + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close the connection behind the bytes written so far."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close the connection now; what is not sent is dropped."""
        self._gathered.clear()
        self._transport.abort()
