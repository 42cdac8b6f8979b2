"""The address that a request comes from, and claims that nobody can make us believe."""

from ipaddress import ip_address, ip_network

import pytest

from meter.errors import InvalidRequest
from meter.network import MAX_HOPS, client_address, is_allowed, read_networks

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        # A stranger says whatever it likes.
        ("192.0.2.1", ["10.0.0.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1", "10.0.0.2, 10.0.0.1"], "192.0.2.1"),
        ("10.0.0.1", ["10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1, not-an-address"], None),
        ("10.0.0.1", ["192.0.2.1, "], None),
        ("10.0.0.1", ["192.0.2.1:443"], None),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("::ffff:192.0.2.1", ["10.0.0.3"], "192.0.2.1"),
        ("", ["192.0.2.1"], None),
        ("unix", [], None),
        ("10.0.0.1", ["192.0.2.1", *["10.0.0.2"] * (MAX_HOPS + 5)], "10.0.0.2"),
    ],
)
def test_walks_back_past_our_own_only(
    peer: str, forwarded: list[str], expected: str | None
) -> None:
    found = client_address(peer, forwarded, TRUSTED)
    assert found == (None if expected is None else ip_address(expected))


def test_an_address_that_nobody_knows_is_let_in_only_where_all_are() -> None:
    assert is_allowed(None, None)
    assert not is_allowed(None, (ip_network("0.0.0.0/0"),))
    assert not is_allowed(ip_address("192.0.2.1"), ())
    assert not is_allowed(ip_address("2001:db8::1"), (ip_network("0.0.0.0/0"),))
    assert is_allowed(ip_address("192.0.2.1"), read_networks("10.0.0.0/8, 192.0.2.1/32"))


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "localhost", "10.0.0.0/8;x"])
def test_says_which_network_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="write networks as"):
        read_networks(text)
