"""Fetches the documents of issuers: over verified TLS, bounded, never from our own network."""

import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from meter.errors import InvalidRequest, IssuerUnavailable, JwtRefused
from meter.jwts.addresses import may_connect, read_https_url
from meter.jwts.reading import read_object
from meter.network import Network
from meter.process.checked_sessions import describe_failure, open_checked_session

MAX_DOCUMENT_BYTES: Final = 262_144
FETCH_TIMEOUT_S: Final = 5.0
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity"}
_NOT_ALLOWED: Final = (
    "its address is not public, and is in none of the networks of TOLLKEEPER_ISSUER_NETWORKS"
)


class IssuerDocuments:
    """Fetches discovery documents and key sets: one GET each, directly and over TLS.

    Redirects, proxies, cookies and compression are off. `extra_ca_file` is trusted in addition to
    the system's roots. Raises InvalidRequest if that file cannot be read.
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
            raise IssuerUnavailable(f"{url!a}: {describe_failure(error)}") from error

    async def _get(self, url: URL) -> bytes:
        async with (
            open_checked_session(
                partial(may_connect, allowed_networks=self._allowed_networks),
                _NOT_ALLOWED,
                self._timeout,
                self._tls,
                keeps_connections=False,
            ) as session,
            session.get(url, headers=_HEADERS, allow_redirects=False) as response,
        ):
            return await _read(response)


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
