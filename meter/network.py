"""The address of a client: the peer itself or, behind trusted proxies, the hop they report."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from meter.errors import InvalidRequest

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

MAX_HOPS: Final = 32


def client_address(
    peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> Address | None:
    """Return the address of the client; None where it cannot be known.

    `peer` is the address that connected, `forwarded_for` the values of x-forwarded-for as they
    came. Each proxy adds on the right the address that connected to it. So the list is read from
    the right, past trusted proxies only. Everything to the left of the first address that is not
    trusted may be invented by that client.
    """
    current = _read(peer)
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops[-MAX_HOPS:]):
        if current is None or not _is_within(current, trusted):
            break
        seen = _read(hop)
        # A proxy that adds its own peer names the one that we know already.
        current = seen
    return current


def is_allowed(address: Address | None, networks: Sequence[Network] | None) -> bool:
    """Return whether the networks include the address.

    `networks` None includes every address, an unknown one (`address` None) too.
    """
    return networks is None or (address is not None and _is_within(address, networks))


def read_networks(text: str) -> tuple[Network, ...]:
    """Read networks in CIDR notation, separated by commas. Raises InvalidRequest."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidRequest(f"{error}; write networks as 10.0.0.0/8,192.0.2.1/32") from None


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == net.version and address in net for net in networks)


def _read(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
