"""The base URLs that providers may have. Pure.

A key goes to the address that is written here. So it is https, and plain http only to hosts and
networks that the operator's setting names: a server on the same machine, or on a network of ours.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from yarl import URL

from meter.errors import InvalidRequest
from meter.network import Network, read_networks

MAX_URL_CHARS: Final = 500
SETTING: Final = "TOLLKEEPER_PLAIN_HTTP_PROVIDERS"
_HOST_SIGNS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


class BaseUrlRefused(InvalidRequest):
    """No provider may have the base URL; the message says why."""


@dataclass(frozen=True, slots=True)
class BaseUrls:
    """Checks base URLs; plain http only to these networks and host names."""

    networks: Sequence[Network] = ()
    hosts: Collection[str] = ()

    @classmethod
    def from_setting(cls, text: str) -> "BaseUrls":
        """Read networks in CIDR notation and host names, with commas. Raises InvalidRequest."""
        parts = [part.strip().lower() for part in text.split(",") if part.strip()]
        hosts = [part for part in parts if _is_host_name(part)]
        return cls(read_networks(",".join(part for part in parts if part not in hosts)), hosts)

    def require(self, text: str) -> str:
        """Return a base URL without a slash at the end. Raises BaseUrlRefused."""
        if not 1 <= len(text) <= MAX_URL_CHARS or not all("!" <= char <= "~" for char in text):
            raise BaseUrlRefused(f"a base URL is 1 to {MAX_URL_CHARS} printable ASCII characters")
        if any(sign in text for sign in '@#?\\"<>%{}'):
            raise BaseUrlRefused(
                "a base URL has no user, query, fragment or escape (@, ?, #, %): the key is set by"
                " `tollkeeper providers set-key`"
            )
        try:
            url = URL(text)
            host, port = url.host, url.port
        except ValueError:
            raise BaseUrlRefused("the base URL is not a URL") from None
        if url.scheme not in ("http", "https") or not host or not port:
            raise BaseUrlRefused(
                "the base URL must begin with https:// and name a host, such as"
                " https://api.example.com/v1"
            )
        if any(part in (".", "..") for part in text.split("/")) or "//" in url.path:
            raise BaseUrlRefused("the path of a base URL has no empty, `.` or `..` segment")
        if url.scheme == "http" and not self._may_be_plain(host):
            raise BaseUrlRefused(
                f"the base URL must begin with https://: plain http to {host} is not allowed by"
                f" {SETTING}, which names hosts and networks such as 127.0.0.0/8,vllm.internal"
            )
        return str(url).rstrip("/")

    def _may_be_plain(self, host: str) -> bool:
        if host.lower() in self.hosts:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address.version == net.version and address in net for net in self.networks)


def _is_host_name(text: str) -> bool:
    """Return whether a part of the setting is a host name, and no address or network."""
    if not set(text) <= _HOST_SIGNS:
        return False
    try:
        ip_address(text)
    except ValueError:
        return True
    return False
