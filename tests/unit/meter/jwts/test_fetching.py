"""Fetching what issuers publish: only over verified TLS, only so much, only from where we may."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from meter.errors import InvalidRequest, IssuerUnavailable
from meter.jwts.addresses import may_connect, read_https_url
from meter.jwts.fetching import MAX_DOCUMENT_BYTES, IssuerDocuments
from meter.network import Network
from tests.patience import WAIT_S
from tests.tls import Authority, make_authority

LOOPBACK: list[Network] = [ip_network("127.0.0.0/8")]
# fmt: off
PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a00:1::", "2001::1", "2001:db8::1", "3fff::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "100::1", "5f00::1", "nonsense",
    "127.1", "2130706433", "0x7f.1",
]
# fmt: on
# fmt: off
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "192.167.1.1", "2606:4700:4700::1111",
    "2a00:1450::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1",
]
# fmt: on

Handler = Callable[[bytes], bytes | list[bytes]]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_connected_to(address: str) -> None:
    assert not may_connect(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are(address: str) -> None:
    assert may_connect(address, ())


def test_networks_that_the_operator_allows() -> None:
    allowed = (*LOOPBACK, ip_network("fd00::/8"))
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1", "1.1.1.1"):
        assert may_connect(address, allowed)
    for address in ("10.0.0.1", "::1", "::ffff:10.0.0.1"):
        assert not may_connect(address, allowed)


@pytest.mark.parametrize(
    "text",
    [
        "http://id.example.com",
        "HTTP://id.example.com",
        "ftp://id.example.com",
        "file:///etc/passwd",
        "//id.example.com",
        "id.example.com",
        "https://",
        "https:///path",
        "https://user@id.example.com",
        "https://user:password@id.example.com",
        "https://@id.example.com",
        "https://id.example.com/#fragment",
        "https://id.example.com/ path",
        "https://id.example.com/\r\nhost: other",
        "https://id.example.com:port/",
        "https://id.example.com:99999/",
        "https://[::1/",
        "https://\u0456d.example.com",
        "https://id.example.com/" + "x" * 500,
        "",
    ],
)
def test_addresses_that_are_not_fetched(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_https_url(text)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def documents(authority: Authority) -> IssuerDocuments:
    return IssuerDocuments(LOOPBACK, authority.ca_file, timeout_s=WAIT_S)


Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve(authority: Authority) -> AsyncIterator[Serve]:
    """Start a server that answers every request with these bytes; gives its address."""
    servers: list[asyncio.Server] = []

    async def start(*chunks: bytes, tls: ssl.SSLContext | None = None, then_s: float = 0) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for chunk in chunks:
                writer.write(chunk)
            await asyncio.sleep(then_s)
            writer.close()

        context = tls or authority.server_context
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        return f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/document"

    yield start
    for server in servers:
        server.close()


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_document_is_fetched(documents: IssuerDocuments, serve: Serve) -> None:
    assert await documents.fetch_object(await serve(reply(b'{"keys": []}'))) == {"keys": []}


async def refused(documents: IssuerDocuments, url: str) -> str:
    with pytest.raises(IssuerUnavailable) as refusal:
        await documents.fetch_object(url)
    return str(refusal.value)


@pytest.mark.parametrize(
    "answer",
    [
        reply(b'{"keys": []}', "404 Not Found"),
        reply(b'{"keys": []}', "500 Oh"),
        reply(b'{"keys": []}', "203 Sure"),
        reply(b"[]"),
        reply(b"not JSON"),
        reply(b'{"a": 1, "a": 2}'),
        reply(b'{"a":' * 9 + b"1" + b"}" * 9),
        reply(b"[" * 200_000),
        reply(b"\xff\xfe{\x00}\x00"),
        reply(b"x", "200 OK", "content-encoding: gzip"),
        reply(b"x", "200 OK", "content-encoding: br"),
        reply(b'{"a": "' + b"x" * MAX_DOCUMENT_BYTES + b'"}'),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n{}",
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=lambda answer: repr(answer[:40]),
)
async def test_answers_that_are_not_taken(
    documents: IssuerDocuments, serve: Serve, answer: bytes
) -> None:
    assert await refused(documents, await serve(answer))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temp", "308 Perm"])
async def test_redirects_are_not_followed(
    documents: IssuerDocuments, serve: Serve, status: str
) -> None:
    target = await serve(reply(b'{"keys": []}'))
    moved = reply(b"", status, f"location: {target}")
    assert status[:3] in await refused(documents, await serve(moved))


async def test_an_answer_that_takes_too_long(authority: Authority, serve: Serve) -> None:
    slow = await serve(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", then_s=WAIT_S)
    hasty = IssuerDocuments(LOOPBACK, authority.ca_file, timeout_s=0.3)
    assert "TimeoutError" in await refused(hasty, slow)


async def test_a_private_address_is_not_connected_to(authority: Authority, serve: Serve) -> None:
    url = await serve(reply(b"{}"))
    cautious = IssuerDocuments((), authority.ca_file)
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:7f00:1]"):
        assert await refused(cautious, url.replace("127.0.0.1", host))


async def test_a_name_that_changes_its_mind_gains_nothing(
    authority: Authority, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is judged at the connection, whatever look-ups said before."""
    url = await serve(reply(b"{}"))
    asked = []

    async def rebind(host: str, port: int, **_options: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebind)
    cautious = IssuerDocuments((), authority.ca_file)
    reason = await refused(cautious, url.replace("127.0.0.1", "id.example.com"))
    assert asked == ["id.example.com"] and "not public" in reason


async def test_certificates_are_verified(
    authority: Authority, serve: Serve, tmp_path: Path
) -> None:
    good = await serve(reply(b"{}"))
    assert "certificate" in await refused(IssuerDocuments(LOOPBACK), good)
    wrong_name = good.replace("127.0.0.1", "127.0.0.2")
    (tmp_path / "other").mkdir()
    other = make_authority(tmp_path / "other")
    trusting = IssuerDocuments(LOOPBACK, authority.ca_file)
    assert await refused(trusting, wrong_name)
    assert "certificate" in await refused(
        trusting, await serve(reply(b"{}"), tls=other.server_context)
    )


async def test_proxies_of_the_environment_are_not_used(
    documents: IssuerDocuments, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await serve(reply(b"{}"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await documents.fetch_object(url) == {}


def test_a_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        IssuerDocuments((), tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(InvalidRequest):
        IssuerDocuments((), tmp_path / "bad.pem")
