"""Fetches the documents of issuers: over verified TLS, bounded, never from our own network."""

import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractCookieJar
from yarl import URL

from meter.errors import InvalidRequest, IssuerUnavailable, JwtRefused
from meter.jwts.addresses import may_connect, read_https_url
from meter.jwts.reading import read_object
from meter.network import Network

MAX_DOCUMENT_BYTES: Final = 262_144
FETCH_TIMEOUT_S: Final = 5.0
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity"}

_AddressInfo = tuple[Any, ...]


class IssuerDocuments:
    """Fetches discovery documents and key sets: one GET each, directly and over TLS.

    Redirects, proxies, cookies and compression are off.

    The address is checked when the connection is made, not before: a name could resolve to another
    address between two look-ups. `extra_ca_file` is trusted in addition to the system's roots.
    Raises InvalidRequest if that file cannot be read.
    """

    def __init__(
        self,
        allowed_networks: Sequence[Network] = (),
        extra_ca_file: Path | None = None,
        timeout_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        self._allowed_networks = tuple(allowed_networks)
        self._tls = _verifying_context(extra_ca_file)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def fetch_object(self, url: str) -> Mapping[str, Any]:
        """Return the JSON object at an https address. Raises IssuerUnavailable."""
        try:
            return read_object(await self._get(read_https_url(url)), "document")
        except (InvalidRequest, JwtRefused) as error:
            raise IssuerUnavailable(f"{url!a}: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise IssuerUnavailable(f"{url!a}: {_describe(error)}") from error

    async def _get(self, url: URL) -> bytes:
        connector = aiohttp.TCPConnector(
            ssl=self._tls, use_dns_cache=False, force_close=True, socket_factory=self._open_socket
        )
        jar: AbstractCookieJar = aiohttp.DummyCookieJar()
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=jar,
                trust_env=False,
                auto_decompress=False,
                timeout=self._timeout,
            ) as session,
            session.get(url, headers=_HEADERS, allow_redirects=False) as response,
        ):
            return await _read(response)

    def _open_socket(self, address_info: _AddressInfo) -> socket.socket:
        """Open a socket for an address; aiohttp connects it to this very address."""
        family, kind, protocol, _name, where = address_info
        if not may_connect(str(where[0]), self._allowed_networks):
            raise OSError(
                "its address is not public, and is in none of the networks of "
                "TOLLKEEPER_ISSUER_NETWORKS"
            )
        return socket.socket(family, kind, protocol)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise IssuerUnavailable(f"{response.url} answered with status {response.status}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise IssuerUnavailable(f"{response.url} sent a compressed answer that was not asked for")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            raise IssuerUnavailable(f"{response.url} answered more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(body)


def _verifying_context(extra_ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_ca_file is not None:
        try:
            context.load_verify_locations(cafile=extra_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(f"the CA file {extra_ca_file} cannot be read: {error}") from error
    return context


def _describe(error: Exception) -> str:
    """Describe an error in a few words: a library's message might quote the answer."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it cannot be connected to ({error.os_error.strerror or error.os_error})"
    return f"it did not answer properly ({type(error).__name__})"
