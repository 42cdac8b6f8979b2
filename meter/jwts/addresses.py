"""The addresses that an issuer may have: public ones, and those that the operator allows. Pure.

Administrators enter the URL of an issuer, but the owner of the domain name decides where it
points. A name that points into our own network must not lead our requests there.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from yarl import URL

from meter.errors import InvalidRequest
from meter.network import Network

MAX_URL_CHARS: Final = 500
_PLAIN: Final = re.compile(rf"[!-~]{{1,{MAX_URL_CHARS}}}")

Address = IPv4Address | IPv6Address

# All other IPv6 addresses are local, reserved or not assigned.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_DOCUMENTATION: Final = IPv6Network("3fff::/20")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def read_https_url(text: str) -> URL:
    """Read an https URL without user, password or fragment. Raises InvalidRequest."""
    if _PLAIN.fullmatch(text) is None:
        raise InvalidRequest(f"an address is 1 to {MAX_URL_CHARS} printable ASCII characters")
    try:
        url = URL(text)
    except ValueError:
        raise InvalidRequest("the address is not a URL") from None
    if url.scheme != "https" or not url.host:
        raise InvalidRequest("the address must begin with https:// and name a host")
    if "@" in text or "#" in text:
        raise InvalidRequest("the address must not contain a user, a password or a fragment (@, #)")
    return url


def may_connect(text: str, allowed_networks: Sequence[Network]) -> bool:
    """Return whether to allow a connection to this address, as a resolver gave it."""
    try:
        address = _innermost(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    return _is_public(address) or any(address in network for network in allowed_networks)


def _innermost(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 address that a router would translate."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if address in _DOCUMENTATION:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
