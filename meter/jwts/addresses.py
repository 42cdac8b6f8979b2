"""Which addresses an issuer may have: public ones, and those that the operator allowed. Pure.

An issuer's address is configured, yet names point where their owners want them to: a document
that is fetched from inside our own network would be a tunnel into it.
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

# Everything else of IPv6 is local, reserved or not yet given to anybody.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_DOCUMENTATION: Final = IPv6Network("3fff::/20")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def read_https_url(text: str) -> URL:
    """An address to fetch from. Raises InvalidRequest for any that says more than where it is."""
    if _PLAIN.fullmatch(text) is None:
        raise InvalidRequest(f"an address is 1 to {MAX_URL_CHARS} printable ASCII characters")
    try:
        url = URL(text)
    except ValueError:
        raise InvalidRequest("this is no address") from None
    if url.scheme != "https" or not url.host:
        raise InvalidRequest("an https:// address is needed")
    if "@" in text or "#" in text:
        raise InvalidRequest("a user, a password or a fragment (@, #) has no place here")
    return url


def may_connect(text: str, allowed_networks: Sequence[Network]) -> bool:
    """Whether a connection to this address, as a resolver gave it, may be made."""
    try:
        address = _innermost(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    return _is_public(address) or any(address in network for network in allowed_networks)


def _innermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries, by whichever rule a router would take it out."""
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
