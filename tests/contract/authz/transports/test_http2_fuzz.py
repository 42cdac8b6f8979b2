"""Whatever bytes come: nothing is raised, and the next connection is served."""

import asyncio
import itertools
import struct
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.transports.http2 import frames
from authz.transports.http2.headers import HeaderDecoder
from authz.transports.http2.limits import ConnectionLimits
from tests.http2_peer import REQUEST_HEADERS, Wire, grpc_message, open_checks, settle

EXAMPLES = 300
# Small, so that random frames reach them.
TIGHT = ConnectionLimits(message_bytes=64, connection_window_bytes=70_000, concurrent_streams=3)


def block() -> bytes:
    return Encoder().encode(REQUEST_HEADERS)


def call(stream_id: int) -> bytes:
    headers = frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block())
    message = grpc_message(b"abc")
    return headers + frames.frame(frames.DATA, frames.END_STREAM, stream_id, message)


stream_ids = st.integers(0, 9) | st.integers(0, 2**32 - 1)
flags = st.sampled_from([0, 1, 4, 5, 8, 0x0D, 0x20, 0x2D]) | st.integers(0, 255)
payloads = st.one_of(
    st.binary(max_size=40),
    st.just(block()),
    st.just(grpc_message(b"abc")),
    st.builds(struct.Struct(">L").pack, st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1])),
    st.builds(struct.Struct(">HL").pack, st.integers(0, 7), st.sampled_from([0, 1, 20_000, 2**31])),
)
random_frames = st.builds(frames.frame, st.integers(0, 11), flags, stream_ids, payloads)
valid_calls = st.builds(call, st.sampled_from([1, 3, 5, 7, 9]))
streams_of_bytes = st.lists(random_frames | valid_calls | st.binary(max_size=30), max_size=12)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def run(runner: asyncio.Runner, work: Coroutine[Any, Any, None]) -> None:
    faults: list[dict[str, Any]] = []
    runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
    runner.run(work)
    assert not faults


async def survive(sent: list[bytes], pieces: int) -> None:
    checks = open_checks()
    wire = Wire(checks.check, TIGHT)
    joined = frames.PREFACE + frames.settings() + b"".join(sent)
    for at in range(0, len(joined), pieces):
        await wire.send(joined[at : at + pieces])
    written = wire.take()
    # Whatever it wrote is well-formed.
    reader = frames.FrameReader(frames.MAX_FRAME_BYTES)
    found = list(reader.feed(frames.PREFACE + written))
    assert wire.transport.is_closed == any(
        kind == frames.GOAWAY and payload[4:8] != bytes(4) for kind, _, _, payload in found
    )
    wire.connection.connection_lost(None)
    await settle()
    assert (wire.intake.checks, wire.intake.connections) == (0, set())
    assert wire.connection._calls._buffered_bytes == 0
    following = Wire(checks.check, TIGHT)
    await following.send(frames.PREFACE + frames.settings() + call(1))
    assert grpc_message(b"cba") in following.take()
    following.connection.connection_lost(None)


@settings(max_examples=EXAMPLES, deadline=None)
@given(sent=streams_of_bytes, pieces=st.sampled_from([1, 7, 1_000]))
def test_any_frames_are_survived(runner: asyncio.Runner, sent: list[bytes], pieces: int) -> None:
    run(runner, survive(sent, pieces))


@settings(max_examples=100, deadline=None)
@given(sent=st.binary(max_size=200))
def test_any_first_bytes_are_survived(runner: asyncio.Runner, sent: bytes) -> None:
    async def survive_first() -> None:
        wire = Wire(open_checks().check)
        await wire.send(sent)
        assert wire.transport.is_closed or frames.PREFACE.startswith(sent[: len(frames.PREFACE)])
        wire.connection.connection_lost(None)

    run(runner, survive_first())


def recorded() -> bytes:
    """An exchange with some of everything."""
    padded = bytes([3]) + grpc_message(b"two") + bytes(3)
    encoder = Encoder()
    first, second = encoder.encode(REQUEST_HEADERS), encoder.encode(REQUEST_HEADERS)
    third = encoder.encode(REQUEST_HEADERS)
    return b"".join(
        (
            frames.PREFACE,
            frames.settings((frames.INITIAL_WINDOW_SIZE, 11)),
            frames.window_update(0, 100_000),
            frames.frame(frames.HEADERS, 0, 1, first[:9]),
            frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, first[9:]),
            frames.frame(frames.DATA, frames.END_STREAM, 1, grpc_message(b"a long one")),
            frames.frame(frames.HEADERS, frames.END_HEADERS, 3, second),
            frames.frame(frames.PING, 0, 0, b"abcdefgh"),
            frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 3, padded),
            frames.frame(frames.HEADERS, frames.END_HEADERS, 5, third),
            frames.reset(5, frames.CANCEL),
            frames.frame(frames.SETTINGS, frames.ACK, 0),
            frames.window_update(1, 500),
        )
    )


async def replies_to(*parts: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return the replies in an order that does not depend on when each task ran."""
    wire = Wire(open_checks().check)
    for part in parts:
        await wire.send(part)
    assert not wire.transport.is_closed
    reader = frames.FrameReader(frames.MAX_FRAME_BYTES)
    found = list(reader.feed(frames.PREFACE + wire.take()))
    wire.connection.connection_lost(None)
    return sorted(_joined_data(found))


def _joined_data(
    found: list[tuple[int, int, int, bytes]],
) -> Iterator[tuple[int, int, int, bytes]]:
    """DATA of a stream as one, and header blocks without what only the first one says."""
    bodies: dict[int, bytes] = {}
    for kind, flag, stream_id, payload in found:
        if kind == frames.DATA:
            bodies[stream_id] = bodies.get(stream_id, b"") + payload
        else:
            yield kind, flag, stream_id, payload.lstrip(b"\x20") if kind == 1 else payload
    yield from ((frames.DATA, 0, stream_id, body) for stream_id, body in bodies.items())


header_lists = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"x" * 30]), st.sampled_from([b"", b"1", b"y" * 3_000])),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(lists=st.lists(header_lists, max_size=20), sizes=st.lists(st.integers(0, 4_096)))
def test_remembered_blocks_read_as_without_memory(
    lists: list[list[tuple[bytes, bytes]]], sizes: list[int]
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(ConnectionLimits())
    changes = iter(sizes)
    for headers in lists:
        for again in range(3):
            if again == 2 and (size := next(changes, None)) is not None:
                encoder.header_table_size = size
            assert decoder.decode(encoder.encode(headers)) == tuple(headers)


async def test_every_split_gives_the_same_answer() -> None:
    sent = recorded()
    expected = await replies_to(sent)
    assert {stream_id for _, _, stream_id, _ in expected} == {0, 1, 3}
    for at in range(1, len(sent)):
        assert await replies_to(sent[:at], sent[at:]) == expected, at
    assert await replies_to(*(bytes([byte]) for byte in sent)) == expected
    for first, second in itertools.pairwise(range(0, len(sent), 17)):
        assert await replies_to(sent[:first], sent[first:second], sent[second:]) == expected
