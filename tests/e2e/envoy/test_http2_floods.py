"""HTTP/2 clients that flood: Envoy ends their connection, and serves the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from aiohttp import web
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.e2e.envoy.envoy_harness import Document, Gateway, running_gateway
from tests.patience import WAIT_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = "/v1/chat/completions"
MIB = 2**20
# Many more than any limit of Envoy's; a flood that is not ended sends all of them.
FRAMES = 40_000
BATCH_BYTES = 4_096
LAST_PING = b"the end."
# Half of `premature_reset_total_stream_count`.
MOST_RESETS = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


def header_block(path: str = PATH) -> bytes:
    """A request without state of the compression, the same for each stream."""
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)]
    plain = [(*field, True) for field in [*fields, ("content-type", "application/json")]]
    return bytes(Encoder().encode(plain))


def resets() -> Iterator[list[Frame]]:
    block = header_block()
    for stream_id in range(1, 2 * FRAMES, 2):
        headers = HeadersFrame(stream_id, data=block, flags=["END_HEADERS"])
        yield [headers, RstStreamFrame(stream_id, error_code=8)]


def resets_of_whole_requests() -> Iterator[list[Frame]]:
    block = header_block()
    for stream_id in range(1, 2 * FRAMES, 2):
        headers = HeadersFrame(stream_id, data=block, flags=["END_HEADERS", "END_STREAM"])
        yield [headers, RstStreamFrame(stream_id, error_code=8)]


def resets_on_the_api() -> Iterator[list[Frame]]:
    block = header_block("/api/v1/credits")
    for stream_id in range(1, 2 * FRAMES, 2):
        headers = HeadersFrame(stream_id, data=block, flags=["END_HEADERS"])
        yield [headers, RstStreamFrame(stream_id, error_code=8)]


def continuations() -> Iterator[list[Frame]]:
    yield [HeadersFrame(1, data=header_block(), flags=[])]
    # A field that is never indexed, with a new name each.
    for number in range(FRAMES):
        name = f"x-{number:06d}".encode()
        field = b"\x10" + bytes([len(name)]) + name + b"\x01a"
        yield [ContinuationFrame(1, data=field, flags=[])]


def empty_continuations() -> Iterator[list[Frame]]:
    yield [HeadersFrame(1, data=header_block(), flags=[])]
    for _ in range(FRAMES):
        yield [ContinuationFrame(1, data=b"", flags=[])]


def settings() -> Iterator[list[Frame]]:
    for number in range(FRAMES):
        yield [SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: number % 4096})]


def pings() -> Iterator[list[Frame]]:
    for _ in range(FRAMES):
        yield [PingFrame(0, opaque_data=b"12345678")]


def empty_data() -> Iterator[list[Frame]]:
    yield [HeadersFrame(1, data=header_block(), flags=["END_HEADERS"])]
    for _ in range(FRAMES):
        yield [DataFrame(1, data=b"")]


def priorities() -> Iterator[list[Frame]]:
    yield [HeadersFrame(1, data=header_block(), flags=["END_HEADERS"])]
    for _ in range(FRAMES):
        yield [PriorityFrame(1, depends_on=0, stream_weight=1)]


def window_updates() -> Iterator[list[Frame]]:
    yield [HeadersFrame(1, data=header_block(), flags=["END_HEADERS"])]
    for _ in range(FRAMES):
        yield [WindowUpdateFrame(1, window_increment=1)]


@contextlib.asynccontextmanager
async def connected(
    gateway: Gateway, window_bytes: int = 65_535
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    window = {SettingsFrame.INITIAL_WINDOW_SIZE: window_bytes}
    writer.write(PREFACE + SettingsFrame(0, settings=window).serialize())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def flood(gateway: Gateway, frames: Iterator[list[Frame]]) -> bool:
    """Send frames and read nothing meanwhile; return whether Envoy ended the connection."""
    async with connected(gateway) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            batch = b""
            for group in frames:
                batch += b"".join(frame.serialize() for frame in group)
                if len(batch) >= BATCH_BYTES:
                    writer.write(batch)
                    batch = b""
                    await writer.drain()
            writer.write(batch + PingFrame(0, opaque_data=LAST_PING).serialize())
            # Either Envoy answers what was sent last, or it has ended the connection.
            seen = b""
            while read := await reader.read(65_536):
                seen = seen[-len(LAST_PING) :] + read
                if LAST_PING in seen:
                    return False
        return True


@pytest.mark.parametrize(
    "frames",
    [
        resets,
        resets_of_whole_requests,
        resets_on_the_api,
        continuations,
        empty_continuations,
        settings,
        pings,
        empty_data,
        priorities,
        window_updates,
    ],
)
async def test_a_flood_of_frames_ends_its_connection_and_no_other(
    gateway: Gateway, frames: Callable[[], Iterator[list[Frame]]]
) -> None:
    gateway.reset()
    flooding = asyncio.ensure_future(flood(gateway, frames()))
    statuses = [(await gateway.post())[0]]
    while not flooding.done():
        statuses.append((await gateway.post())[0])
    async with asyncio.timeout(WAIT_S):
        assert await flooding
    assert set(statuses) == {200}


def without_limits_of_resets(document: Document) -> None:
    del document["layered_runtime"]


async def checks_of_a_flood(gateway: Gateway) -> int:
    """Return how many checks one connection of resets asks for."""
    name = "cluster.authz.upstream_rq_total"
    gateway.reset()
    assert (await gateway.post())[0] == 200  # connects to authz
    before = await gateway.counter(name)
    async with asyncio.timeout(WAIT_S):
        assert await flood(gateway, resets_of_whole_requests())
    return await gateway.counter(name) - before


async def test_streams_that_are_reset_at_once_ask_for_few_checks(gateway: Gateway) -> None:
    async with running_gateway(change=without_limits_of_resets) as unlimited:
        most = await checks_of_a_flood(unlimited)
    few = await checks_of_a_flood(gateway)
    assert few <= MOST_RESETS
    assert few < most


async def test_a_reader_that_takes_nothing_holds_the_provider_back(gateway: Gateway) -> None:
    """Envoy keeps some of a stream for a client with a shut window, not all of it."""
    gateway.reset()
    sent = 0
    is_full = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        piece = b"data: " + b"x" * 65_000 + b"\n\n"
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:
                writing = asyncio.ensure_future(reply.write(piece))
                done, _ = await asyncio.wait([writing], timeout=1)
                if not done:
                    is_full.set()
                await writing
                sent += len(piece)
        is_full.set()
        return reply

    gateway.provider.answer = stream
    async with connected(gateway, window_bytes=0) as (_, writer):
        flags = ["END_HEADERS", "END_STREAM"]
        writer.write(HeadersFrame(1, data=header_block(), flags=flags).serialize())
        async with asyncio.timeout(WAIT_S):
            await is_full.wait()
        # Buffers of sockets in between are some MiB as well.
        assert sent < 50 * MIB
        gateway.reset()
        assert (await gateway.post())[0] == 200
