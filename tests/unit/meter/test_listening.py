"""Addresses that services listen on, and the sockets at them."""

import socket
import stat
from pathlib import Path

import pytest

from meter.errors import InvalidRequest
from meter.listening import SOCKET_MODE, ListenAddress, listening_socket, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a.sock", ListenAddress(Path("/run/a.sock"))),
        ("unix:a:1", ListenAddress(Path("a:1"))),
        ("127.0.0.1:8081", ListenAddress(None, "127.0.0.1", 8081)),
        ("meter:0", ListenAddress(None, "meter", 0)),
        ("[::1]:65535", ListenAddress(None, "::1", 65_535)),
        (":8081", ListenAddress(None, "", 8081)),
    ],
)
def test_reads_sockets_and_ports(text: str, address: ListenAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "nowhere", "8081", "host:", "host:http", "host:-1", "host:65536", "UNIX:/a"],
)
def test_refuses_anything_else(text: str) -> None:
    with pytest.raises(InvalidRequest, match="neither unix:/path nor host:port"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("unix:/run/a.sock", "http://localhost"),
        ("127.0.0.1:1", "http://127.0.0.1:1"),
        ("0.0.0.0:1", "http://127.0.0.1:1"),
        (":1", "http://127.0.0.1:1"),
        ("[::]:1", "http://[::1]:1"),
        ("[fe80::1]:1", "http://[fe80::1]:1"),
        ("meter:9000", "http://meter:9000"),
    ],
)
def test_a_client_on_this_machine_has_a_url(text: str, url: str) -> None:
    assert parse_address(text).base_url == url


def test_listens_on_a_port_of_either_family() -> None:
    for text, family in (("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)):
        try:
            with listening_socket(text) as bound:
                assert bound.family is family
        except OSError:
            if family is socket.AF_INET:
                raise
            pytest.skip("this machine has no IPv6")


def test_a_unix_socket_is_for_user_and_group(tmp_path: Path) -> None:
    with listening_socket(f"unix:{tmp_path}/a.sock"):
        assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == SOCKET_MODE


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    listening_socket(f"unix:{tmp_path}/a.sock").close()
    listening_socket(f"unix:{tmp_path}/a.sock").close()


def test_a_socket_in_use_stays(tmp_path: Path) -> None:
    with listening_socket(f"unix:{tmp_path}/a.sock") as bound:
        bound.listen()
        with pytest.raises(OSError, match=r"cannot listen on unix:.*another process"):
            listening_socket(f"unix:{tmp_path}/a.sock")


def test_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a.sock").write_text("kept")
    with pytest.raises(OSError, match=r"cannot listen on unix:.*not a socket"):
        listening_socket(f"unix:{tmp_path}/a.sock")
    assert (tmp_path / "a.sock").read_text() == "kept"


@pytest.mark.parametrize("text", ["nowhere", "unix:/nowhere/at/all/a.sock", "192.0.2.1:1"])
def test_an_address_that_cannot_be_had_is_an_os_error_with_the_address(text: str) -> None:
    with pytest.raises(OSError, match=f"cannot listen on {text}"):
        listening_socket(text)
