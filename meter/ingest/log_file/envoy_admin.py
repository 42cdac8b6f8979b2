"""The few questions that the meter asks of Envoy's administration interface."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from meter.errors import EnvoyUnavailable
from meter.listening import parse_address

TIMEOUT_S: Final = 2.0
MAX_REPLY_BYTES: Final = 1024 * 1024


class EnvoyAdmin:
    """Envoy's administration interface at `unix:/path` or `host:port`.

    Every call is a connection of its own: they are seconds apart, and Envoy may be restarted.
    Raises InvalidRequest for an address of neither form, EnvoyUnavailable when it does not answer.
    """

    def __init__(self, address: str) -> None:
        parsed = parse_address(address)
        self._socket = parsed.path
        self._url = parsed.base_url

    async def reopen_logs(self) -> None:
        """Have Envoy open its access logs anew, by their names; it does so within a flush."""
        async with self._answer("POST", "/reopen_logs"):
            pass

    async def counters(self, pattern: str) -> Mapping[str, int]:
        """The counters and gauges whose names match a regular expression."""
        async with self._answer("GET", "/stats", filter=pattern, format="json") as reply:
            body = await _bounded(reply)
        try:
            stats = json.loads(body)["stats"]
            return {each["name"]: int(each["value"]) for each in stats if "value" in each}
        except (ValueError, KeyError, TypeError) as error:
            raise EnvoyUnavailable("Envoy's statistics cannot be read") from error

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, **query: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(self._socket)) if self._socket else None,
                    timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                ) as session,
                session.request(method, self._url + path, params=query) as reply,
            ):
                reply.raise_for_status()
                yield reply
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            name = type(error).__name__
            raise EnvoyUnavailable(f"Envoy's administration does not answer ({name})") from error


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in reply.content.iter_any():
        body += piece
        if len(body) > MAX_REPLY_BYTES:
            raise EnvoyUnavailable("Envoy's answer is too long")
    return bytes(body)
