"""Sends bodies to addresses that others chose: bounded, without redirects, to checked addresses."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from meter.errors import MeterError, Outage

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
MAX_REPLY_BYTES: Final = 65_536
MAX_ERROR_CHARS: Final = 500
# The sink says that the body is wrong, so the same body would be refused again.
_REFUSED: Final = frozenset({400, 413, 422})

_AddressInfo = tuple[Any, ...]


class SinkUnavailable(Outage):
    """The other side does not take anything now, for a reason that no event is at fault for."""


class EventsRefused(MeterError):
    """The other side refuses the events of this body; `reply` is what it says."""

    def __init__(self, status: int, reply: bytes) -> None:
        text = reply.decode("utf-8", "replace")
        printable = "".join(char if char.isprintable() else " " for char in text)
        super().__init__(f"status {status}: {printable}"[:MAX_ERROR_CHARS])
        self.status = status
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and the body of an answer."""

    status: int
    body: bytes


class Sender:
    """Sends requests with a body or none.

    An address is checked where the connection is made, not before: a name could resolve to another
    address between two look-ups. `may_connect` decides about each.
    """

    def __init__(self, may_connect: Callable[[str], bool], timeout_s: float = TIMEOUT_S) -> None:
        self._may_connect = may_connect
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_TIMEOUT_S)
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        """Return the answer where it is 2xx.

        Raises EventsRefused for 400, 413 and 422, and SinkUnavailable for every other answer, for
        a redirect, and for none.
        """
        try:
            async with self._opened().request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                reply = b""
                async for chunk in response.content.iter_any():
                    reply += chunk
                    if len(reply) > MAX_REPLY_BYTES:
                        break
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise SinkUnavailable(_describe(error)) from error
        if status in _REFUSED:
            raise EventsRefused(status, reply)
        if not 200 <= status < 300:
            hint = {
                401: ": check the credential",
                404: ": check the address, the code and the plan",
            }
            kind = " (redirects are not followed)" if 300 <= status < 400 else ""
            raise SinkUnavailable(f"it answered {status}{kind}{hint.get(status, '')}")
        return Answer(status, reply)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    use_dns_cache=False, socket_factory=self._open_socket
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=self._timeout,
            )
        return self._session

    def _open_socket(self, address_info: _AddressInfo) -> socket.socket:
        """Open a socket for an address; aiohttp connects it to this very address."""
        family, kind, protocol, _name, where = address_info
        if not self._may_connect(str(where[0])):
            raise OSError("its address is not allowed here")
        return socket.socket(family, kind, protocol)


def _describe(error: Exception) -> str:
    """Describe an error in a few words: a library's message might quote the answer."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it cannot be connected to ({error.os_error.strerror or error.os_error})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"it did not answer properly ({type(error).__name__})"
