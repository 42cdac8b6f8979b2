"""Sends bodies to addresses that others chose: bounded, without redirects, to checked addresses."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from meter.errors import MeterError, Outage
from meter.process.checked_sessions import describe_failure, open_checked_session

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
MAX_REPLY_BYTES: Final = 65_536
MAX_ERROR_CHARS: Final = 500
# The sink says that the body is wrong, so the same body would be refused again.
_REFUSED: Final = frozenset({400, 413, 422})
# One text for both: nobody learns which names the inside of our network has.
_NOT_ALLOWED: Final = "no name server knows it, or its address is not allowed here"


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
    """Sends requests with a body or none, to addresses that `may_connect` allows."""

    def __init__(
        self,
        may_connect: Callable[[str], bool],
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._may_connect = may_connect
        self._tls = tls
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
            raise SinkUnavailable(_why(error)) from error
        if status in _REFUSED:
            raise EventsRefused(status, reply)
        if not 200 <= status < 300:
            hint = {
                401: ": check the credential",
                404: ": check the address, and at Lago the code and the plan",
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
            self._session = open_checked_session(
                self._may_connect, _NOT_ALLOWED, self._timeout, self._tls
            )
        return self._session


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.InvalidURL):
        return f"it cannot be connected to ({_NOT_ALLOWED})"
    return describe_failure(error)
