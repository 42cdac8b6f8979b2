"""HTTP sessions to addresses that others chose: each address is checked as it is connected to."""

import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp

_AddressInfo = tuple[Any, ...]


def open_checked_session(
    may_connect: Callable[[str], bool],
    refusal: str,
    timeout: aiohttp.ClientTimeout,
    tls: ssl.SSLContext | None = None,
    keeps_connections: bool = True,
) -> aiohttp.ClientSession:
    """Return a session without cookies, proxies and decompression; callers switch off redirects.

    The address is checked when the connection is made, not before: a name could resolve to another
    address between two look-ups. One that `may_connect` forbids raises OSError with `refusal`.
    Without `tls`, certificates are verified against the system's roots.
    """

    def open_socket(address_info: _AddressInfo) -> socket.socket:
        # aiohttp connects the socket to this very address.
        family, kind, protocol, _name, where = address_info
        if not may_connect(str(where[0])):
            raise OSError(refusal)
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=True if tls is None else tls,
            use_dns_cache=False,
            force_close=not keeps_connections,
            socket_factory=open_socket,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=timeout,
    )


def describe_failure(error: Exception) -> str:
    """Describe an error in a few words: a library's message might quote the answer."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it cannot be connected to ({error.os_error.strerror or error.os_error})"
    return f"it did not answer properly ({type(error).__name__})"
