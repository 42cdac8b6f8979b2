"""The HTTP/2 server against hyper-h2, an independent and strict peer, and against broken ones."""

import asyncio
from collections.abc import Callable

import pytest
from h2.settings import SettingCodes
from hpack import Encoder

from authz.transports.http2 import frames
from authz.transports.http2.connection import DRAIN
from authz.transports.http2.limits import ConnectionLimits
from authz.transports.http2.status import RESPONSE_TRAILERS
from authz.transports.http2.take_backs import FENCE_AFTER_ANSWERS, TakeBacks
from tests.http2_peer import REQUEST_HEADERS, Checks, Peer, Wire, grpc_message, open_checks, settle
from tests.patience import WAIT_S

WINDOW = SettingCodes.INITIAL_WINDOW_SIZE
HEADERS_ENDED = frames.END_HEADERS | frames.END_STREAM


def block(headers: list[tuple[str, str]] | None = None) -> bytes:
    return Encoder().encode(headers or REQUEST_HEADERS)


def without(name: str) -> list[tuple[str, str]]:
    return [pair for pair in REQUEST_HEADERS if pair[0] != name]


def opening() -> bytes:
    return frames.PREFACE + frames.settings()


def whole_call(stream_id: int, payload: bytes = b"abc") -> bytes:
    headers = frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block())
    return headers + frames.frame(frames.DATA, frames.END_STREAM, stream_id, grpc_message(payload))


def kinds_of(written: bytes) -> list[tuple[int, int, int, bytes]]:
    reader = frames.FrameReader(frames.MAX_FRAME_BYTES)
    return list(reader.feed(frames.PREFACE + written))


def goaway_code(written: bytes) -> int | None:
    for kind, _, _, payload in kinds_of(written):
        if kind == frames.GOAWAY:
            return int.from_bytes(payload[4:8])
    return None


def reset_code(written: bytes, stream_id: int) -> int | None:
    for kind, _, on, payload in kinds_of(written):
        if (kind, on) == (frames.RST_STREAM, stream_id):
            return int.from_bytes(payload)
    return None


async def test_an_answer_is_headers_message_and_trailers() -> None:
    peer = await Peer(open_checks().check).open()
    for _ in range(3):
        reply = await peer.ask(b"abc")
        assert reply.headers == {":status": "200", "content-type": "application/grpc"}
        assert (reply.body, reply.status, reply.is_ended) == (grpc_message(b"cba"), "0", True)
    assert peer.terminated is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": [*without(":path"), (":path", "/a/b")]}, None),
        ({"headers": without("content-type")}, None),
        ({"headers": [*without("content-type"), ("content-type", "application/grpcx")]}, None),
        ({"raw": b"\x01" + grpc_message(b"abc")[1:]}, "12"),
        ({"raw": grpc_message(b"abc") * 2}, "13"),
        ({"raw": grpc_message(b"abc")[:-1]}, "13"),
        ({"raw": b""}, "13"),
        ({"raw": b"\0\0"}, "13"),
        ({"raw": b"\0\x7f\xff\xff\xff"}, "8"),
    ],
)
async def test_what_is_no_check_is_refused_with_a_status(
    changes: dict[str, object], status: str | None
) -> None:
    checks = open_checks()
    peer = await Peer(checks.check).open()
    if "headers" in changes:
        ordered = sorted(changes["headers"], key=lambda pair: not pair[0].startswith(":"))  # type: ignore[call-overload]
        reply = await peer.ask(b"abc", headers=ordered)
        status = "12" if reply.headers[":status"] == "200" else None
        assert reply.headers[":status"] in ("200", "415")
    else:
        reply = await peer.ask(b"abc", **changes)
    assert reply.status == status
    assert reply.is_ended
    assert not checks.seen
    assert (await peer.ask(b"abc")).body == grpc_message(b"cba")


async def test_a_check_that_raises_is_status_13() -> None:
    peer = await Peer(open_checks().check).open()
    reply = await peer.ask(b"fault")
    assert (reply.status, reply.body) == ("13", b"")
    assert "planted" not in str(reply.headers)
    assert (await peer.ask(b"abc")).status == "0"


async def test_padding_is_not_message_and_gives_its_window_back() -> None:
    limits = ConnectionLimits(message_bytes=1_000)
    peer = await Peer(open_checks().check, limits).open()
    stream_id = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(stream_id, REQUEST_HEADERS, priority_weight=3)
    message = grpc_message(b"x" * 1_000)
    for at in range(0, len(message), 10):
        peer.h2.send_data(stream_id, message[at : at + 10], pad_length=200)
        await peer.flush()
    peer.h2.end_stream(stream_id)
    await peer.flush()
    assert peer.replies[stream_id].body == message


async def test_headers_in_many_frames_and_trailers() -> None:
    wire = Wire(open_checks().check)
    parts = [block()[at : at + 3] for at in range(0, len(block()), 3)]
    sent = opening() + frames.frame(frames.HEADERS, 0, 1, parts[0])
    for part in parts[1:-1]:
        sent += frames.frame(frames.CONTINUATION, 0, 1, part)
    sent += frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, parts[-1])
    sent += frames.frame(frames.DATA, 0, 1, grpc_message(b"abc"))
    sent += frames.frame(frames.HEADERS, HEADERS_ENDED, 1, Encoder().encode([("x-end", "1")]))
    await wire.send(sent)
    assert grpc_message(b"cba") in wire.take()


async def test_tiny_windows_and_settings_that_change_midway() -> None:
    payload = bytes(range(256)) * 400
    peer = await Peer(open_checks().check).open()
    peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    await peer.flush()
    first, second = peer.request(payload), peer.request(b"abc")
    await peer.flush()
    assert (len(peer.replies[first].body), peer.replies[second].is_ended) == (10, True)
    peer.h2.increment_flow_control_window(7, first)
    await peer.flush()
    assert len(peer.replies[first].body) == 17
    # One after the other: hyper-h2 takes larger frames only once it has read the answer.
    for name, value in ((SettingCodes.MAX_FRAME_SIZE, 50_000), (WINDOW, 200_000)):
        peer.h2.update_settings({name: value})
        await peer.flush()
    assert not peer.replies[first].is_ended
    peer.h2.increment_flow_control_window(100_000)
    await peer.flush()
    assert peer.replies[first].body == grpc_message(payload[::-1])
    assert peer.replies[first].status == "0"


async def test_a_smaller_header_table_is_kept_to() -> None:
    peer = await Peer(open_checks().check).open()
    peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 0})
    await peer.flush()
    assert (await peer.ask(b"abc")).status == "0"
    for size in (4_096, 100, 0):
        peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
        await peer.flush()
        assert (await peer.ask(b"abc")).status == "0"


async def test_pings_are_answered_and_unknown_frames_ignored() -> None:
    wire = Wire(open_checks().check)
    sent = (
        opening() + frames.frame(0x77, 0xFF, 5, b"?") + frames.frame(frames.PING, 0, 0, b"12345678")
    )
    await wire.send(sent + frames.frame(frames.GOAWAY, 0, 0, bytes(8)) + whole_call(1))
    written = kinds_of(wire.take())
    assert (frames.PING, frames.ACK, 0, b"12345678") in written
    assert any(kind == frames.DATA for kind, *_ in written)


async def test_header_state_survives_refused_streams() -> None:
    checks = Checks()
    peer = await Peer(checks.check, ConnectionLimits(concurrent_streams=1)).open()
    headers = [*REQUEST_HEADERS, ("x-one", "1")]
    first = peer.request(b"abc", headers)
    peer.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 9
    peer.h2.remote_settings.acknowledge()
    refused = peer.request(b"abc", [*headers, ("x-two", "2")])
    await peer.flush()
    assert peer.replies[refused].reset_code == frames.REFUSED_STREAM
    checks.gate.set()
    await settle()
    await peer.flush()
    assert peer.replies[first].status == "0"
    assert (await peer.ask(b"abc", headers=[*headers, ("x-two", "2")])).status == "0"


async def test_overload_is_said_and_passes() -> None:
    checks = Checks()
    peer = await Peer(checks.check, ConnectionLimits(concurrent_checks=1)).open()
    peer.request(b"abc")
    await peer.flush()
    assert (await peer.ask(b"abc")).status == "14"
    checks.gate.set()
    await settle()
    await peer.flush()
    assert (await peer.ask(b"abc")).status == "0"
    full = await Peer(checks.check, ConnectionLimits(buffered_bytes=100)).open()
    assert (await full.ask(b"x" * 100)).status == "8"
    assert (await full.ask(b"x" * 50)).status == "0"


async def test_a_reset_during_the_check_cancels_it() -> None:
    checks = Checks()
    peer = await Peer(checks.check).open()
    stream_id = peer.request(b"abc")
    await peer.flush()
    peer.h2.reset_stream(stream_id)
    await peer.flush()
    assert (checks.cancelled, checks.taken_back, peer.intake.checks) == (1, [], 0)


async def test_a_reset_that_crosses_the_answer_takes_it_back_once() -> None:
    checks = open_checks()
    peer = await Peer(checks.check).open()
    stream_id = peer.request(b"abc")
    await peer.send(peer.h2.data_to_send())
    # The answer is written; the peer has not read it when it gives up.
    peer.h2.reset_stream(stream_id)
    await peer.send(peer.h2.data_to_send())
    assert checks.taken_back == [b"abc"]
    await peer.send(frames.reset(stream_id, frames.CANCEL))
    assert checks.taken_back == [b"abc"]


async def test_an_answer_that_never_ended_is_taken_back() -> None:
    checks = open_checks()
    peer = await Peer(checks.check).open()
    peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 3})
    await peer.flush()
    stream_id = peer.request(b"abc")
    await peer.flush()
    peer.h2.reset_stream(stream_id)
    await peer.flush()
    other = peer.request(b"def")
    await peer.flush()
    assert not peer.replies[other].is_ended
    peer.connection.connection_lost(None)
    assert checks.taken_back == [b"abc", b"def"]


async def test_a_lost_connection_takes_nothing_back_that_was_written() -> None:
    checks = open_checks()
    peer = await Peer(checks.check).open()
    await peer.ask(b"abc")
    checks.gate.clear()
    peer.request(b"def")
    await peer.flush()
    peer.connection.connection_lost(None)
    await settle()
    assert (checks.taken_back, checks.cancelled) == ([], 1)


async def test_a_check_that_ignores_its_cancellation_is_taken_back() -> None:
    checks = Checks()

    async def stubborn(payload: bytes) -> object:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            checks.gate.set()
        return await checks.check(payload)

    peer = await Peer(stubborn).open()  # type: ignore[arg-type]
    stream_id = peer.request(b"abc")
    await peer.flush()
    peer.h2.reset_stream(stream_id)
    await peer.flush()
    assert checks.taken_back == [b"abc"]


def test_answers_are_forgotten_two_fences_later() -> None:
    taken: list[int] = []
    kept = TakeBacks(most=1_000)
    for number in range(FENCE_AFTER_ANSWERS):
        kept.remember(number, lambda number=number: taken.append(number))  # type: ignore[misc]
    assert kept.needs_fence and kept.raise_fence()
    kept.remember(999, lambda: taken.append(999))
    assert not kept.raise_fence()
    kept.pass_fence()
    assert kept.pop(0) is not None
    assert kept.pop(0) is None
    assert kept.raise_fence()
    kept.pass_fence()
    assert kept.pop(1) is None
    assert kept.pop(999) is not None
    assert not len(kept)
    assert not kept.raise_fence()


def test_remembered_answers_are_bounded() -> None:
    kept = TakeBacks(most=3)
    for number in range(5):
        kept.remember(number, lambda: None)
    assert len(kept) == 3
    assert kept.pop(0) is None and kept.pop(4) is not None


async def test_fences_keep_memory_small_under_load() -> None:
    peer = await Peer(open_checks().check).open()
    for _ in range(FENCE_AFTER_ANSWERS * 3 + 5):
        await peer.ask(b"abc")
    assert len(peer.connection._calls._take_backs) < FENCE_AFTER_ANSWERS * 2 + 10


async def test_answers_of_one_turn_of_the_loop_leave_in_one_write() -> None:
    checks = Checks()
    wire = Wire(checks.check)
    await wire.send(opening() + whole_call(1) + whole_call(3) + whole_call(5))
    # Of a fourth call only the beginning has come: the answers do not wait for it.
    await wire.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 7, block()))
    wire.take()
    writes = wire.transport.writes
    checks.gate.set()
    await settle()
    assert wire.transport.writes == writes + 1
    assert wire.take().count(RESPONSE_TRAILERS) == 3


async def test_draining_finishes_what_is_under_way() -> None:
    checks = Checks()
    wire = Wire(checks.check)
    drained = frames.frame(frames.PING, frames.ACK, 0, DRAIN)
    await wire.send(opening() + whole_call(1))
    wire.connection.drain()
    assert goaway_code(wire.take()) == frames.NO_ERROR
    # On its way while the first GOAWAY was.
    await wire.send(whole_call(3, b"late") + drained + whole_call(5, b"too late"))
    assert checks.seen == [b"abc", b"late"]
    assert reset_code(wire.take(), 5) == frames.REFUSED_STREAM
    checks.gate.set()
    await settle()
    written = wire.take()
    assert grpc_message(b"cba") in written and grpc_message(b"etal") in written
    # Even now an answer may be thrown away.
    await wire.send(frames.reset(1, frames.CANCEL))
    assert checks.taken_back == [b"abc"]
    assert not wire.transport.is_closed
    await wire.send(drained)
    assert wire.transport.is_closed
    assert goaway_code(wire.take()) == frames.NO_ERROR


async def test_a_window_that_shrinks_below_zero_is_kept_to() -> None:
    wire = Wire(open_checks().check)
    await wire.send(opening() + frames.settings((frames.INITIAL_WINDOW_SIZE, 10)))
    await wire.send(whole_call(1, b"x" * 20))
    assert wire.take().count(b"x") == 5
    await wire.send(frames.settings((frames.INITIAL_WINDOW_SIZE, 0)))
    await wire.send(frames.window_update(1, 10))
    assert b"x" not in wire.take()
    await wire.send(frames.window_update(1, 15))
    written = wire.take()
    assert written.count(b"x") == 15
    assert b"grpc-status" in written


BROKEN: dict[str, tuple[int, bytes]] = {
    "not settings first": (frames.PROTOCOL_ERROR, frames.frame(frames.PING, 0, 0, bytes(8))),
    "an answer to settings first": (
        frames.PROTOCOL_ERROR,
        frames.frame(frames.SETTINGS, frames.ACK, 0),
    ),
    "settings of a wrong length": (frames.FRAME_SIZE_ERROR, frames.frame(4, 0, 0, b"12345")),
}
BROKEN_LATER: dict[str, tuple[int, bytes]] = {
    "settings on a stream": (frames.PROTOCOL_ERROR, frames.frame(frames.SETTINGS, 0, 1)),
    "an acknowledgement with settings": (
        frames.FRAME_SIZE_ERROR,
        frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
    ),
    "a frame size too small": (
        frames.PROTOCOL_ERROR,
        frames.settings((frames.MAX_FRAME_SIZE, 100)),
    ),
    "a window too large": (
        frames.FLOW_CONTROL_ERROR,
        frames.settings((frames.INITIAL_WINDOW_SIZE, 2**31)),
    ),
    "push of two": (frames.PROTOCOL_ERROR, frames.settings((frames.ENABLE_PUSH, 2))),
    "a frame too large": (frames.FRAME_SIZE_ERROR, frames.head(2**20 + 1, 0, 0, 1)),
    "data on an idle stream": (frames.PROTOCOL_ERROR, frames.frame(frames.DATA, 0, 1, b"x")),
    "data on no stream": (frames.PROTOCOL_ERROR, frames.frame(frames.DATA, 0, 0, b"x")),
    "reset of an idle stream": (frames.PROTOCOL_ERROR, frames.reset(1, 8)),
    "a short reset": (frames.FRAME_SIZE_ERROR, frames.frame(frames.RST_STREAM, 0, 1, b"123")),
    "a window for an idle stream": (frames.PROTOCOL_ERROR, frames.window_update(1, 1)),
    "a window that grows by nothing": (frames.PROTOCOL_ERROR, frames.window_update(0, 0)),
    "a window over the maximum": (
        frames.FLOW_CONTROL_ERROR,
        frames.window_update(0, 2**31 - 1),
    ),
    "an even stream": (
        frames.PROTOCOL_ERROR,
        frames.frame(frames.HEADERS, HEADERS_ENDED, 2, block()),
    ),
    "a promise": (frames.PROTOCOL_ERROR, frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4))),
    "a short ping": (frames.FRAME_SIZE_ERROR, frames.frame(frames.PING, 0, 0, b"1234")),
    "a short priority": (frames.FRAME_SIZE_ERROR, frames.frame(frames.PRIORITY, 0, 1, b"1")),
    "continuation of nothing": (
        frames.PROTOCOL_ERROR,
        frames.frame(frames.CONTINUATION, 4, 1, b""),
    ),
    "an interrupted block": (
        frames.PROTOCOL_ERROR,
        frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.PING, 0, 0, bytes(8)),
    ),
    "a block on two streams": (
        frames.PROTOCOL_ERROR,
        frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.CONTINUATION, 4, 3, b""),
    ),
    "nothing but padding": (
        frames.PROTOCOL_ERROR,
        frames.frame(frames.HEADERS, frames.PADDED | HEADERS_ENDED, 1, b"\x05abcd"),
    ),
    "headers shorter than their priority": (
        frames.FRAME_SIZE_ERROR,
        frames.frame(frames.HEADERS, frames.HAS_PRIORITY | HEADERS_ENDED, 1, b"abc"),
    ),
    "a broken header block": (
        frames.COMPRESSION_ERROR,
        frames.frame(frames.HEADERS, HEADERS_ENDED, 1, b"\xff\xff\xff\xff\xff"),
    ),
    "an endless header block": (
        frames.ENHANCE_YOUR_CALM,
        frames.frame(frames.HEADERS, 0, 1, b"")
        + frames.frame(frames.CONTINUATION, 0, 1, b"") * ConnectionLimits().header_frames,
    ),
    "a huge header block": (
        frames.ENHANCE_YOUR_CALM,
        frames.frame(
            frames.HEADERS, HEADERS_ENDED, 1, bytes(ConnectionLimits().header_block_bytes + 1)
        ),
    ),
    "a header bomb": (
        frames.ENHANCE_YOUR_CALM,
        frames.frame(
            frames.HEADERS,
            HEADERS_ENDED,
            1,
            Encoder().encode([("x", "y" * 3_000)]) + b"\xbe" * 1_000,
        ),
    ),
    "a flood of pings": (
        frames.ENHANCE_YOUR_CALM,
        frames.frame(frames.PING, 0, 0, bytes(8)) * (2 * ConnectionLimits().idle_frames_per_s + 1),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_beginning_ends_with_its_code(case: str) -> None:
    code, sent = BROKEN[case]
    wire = Wire(open_checks().check)
    await wire.send(frames.PREFACE + sent)
    assert wire.transport.is_closed
    assert goaway_code(wire.take()) == code


@pytest.mark.parametrize("case", BROKEN_LATER)
async def test_a_broken_connection_ends_with_its_code(case: str) -> None:
    code, sent = BROKEN_LATER[case]
    checks = Checks()
    wire = Wire(checks.check)
    await wire.send(opening() + sent)
    assert wire.transport.is_closed
    assert goaway_code(wire.take()) == code


async def test_a_broken_connection_cancels_its_checks() -> None:
    checks = Checks()
    wire = Wire(checks.check)
    await wire.send(opening() + whole_call(1) + whole_call(3))
    await wire.send(frames.window_update(0, 0))
    assert (checks.cancelled, wire.intake.checks, wire.intake.connections) == (2, 0, set())


@pytest.mark.parametrize(
    "headers",
    [
        without(":method"),
        without(":path"),
        [*REQUEST_HEADERS, (":path", "/late")],
        [(":path", "/twice"), *REQUEST_HEADERS],
        [(":status", "200"), *REQUEST_HEADERS],
        [*REQUEST_HEADERS, ("connection", "close")],
        [*REQUEST_HEADERS, ("Upper", "case")],
        [*without("te"), ("te", "gzip")],
    ],
)
async def test_malformed_headers_reset_their_stream_alone(headers: list[tuple[str, str]]) -> None:
    wire = Wire(open_checks().check)
    await wire.send(opening() + frames.frame(frames.HEADERS, HEADERS_ENDED, 1, block(headers)))
    assert reset_code(wire.take(), 1) == frames.PROTOCOL_ERROR
    await wire.send(whole_call(3))
    assert grpc_message(b"cba") in wire.take()


async def test_an_empty_header_block_is_malformed() -> None:
    checks = open_checks()
    wire = Wire(checks.check)
    await wire.send(opening() + frames.frame(frames.HEADERS, HEADERS_ENDED, 1))
    assert reset_code(wire.take(), 1) == frames.PROTOCOL_ERROR
    assert not checks.seen


STREAM_FAULTS: dict[str, tuple[int, bytes]] = {
    "data after the end": (frames.STREAM_CLOSED, frames.frame(frames.DATA, 0, 1, b"x")),
    "headers after the end": (
        frames.STREAM_CLOSED,
        frames.frame(frames.HEADERS, HEADERS_ENDED, 1, block()),
    ),
    "a window that grows by nothing": (frames.PROTOCOL_ERROR, frames.window_update(1, 0)),
    "a window over the maximum": (
        frames.FLOW_CONTROL_ERROR,
        frames.window_update(1, 2**31 - 1),
    ),
}


@pytest.mark.parametrize("case", STREAM_FAULTS)
async def test_a_broken_stream_is_reset_alone_and_its_check_cancelled(case: str) -> None:
    code, sent = STREAM_FAULTS[case]
    checks = Checks()
    wire = Wire(checks.check)
    await wire.send(opening() + whole_call(1) + whole_call(3))
    await wire.send(sent)
    assert reset_code(wire.take(), 1) == code
    assert (checks.cancelled, wire.intake.checks) == (1, 1)


async def test_a_message_over_its_window_is_a_flow_control_error() -> None:
    wire = Wire(
        open_checks().check, ConnectionLimits(message_bytes=100, connection_window_bytes=100_000)
    )
    headers = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block())
    await wire.send(opening() + headers + frames.frame(frames.DATA, 0, 1, bytes(70_000)))
    assert reset_code(wire.take(), 1) == frames.FLOW_CONTROL_ERROR
    await wire.send(frames.frame(frames.DATA, 0, 1, bytes(100_001)))
    assert goaway_code(wire.take()) == frames.FLOW_CONTROL_ERROR


async def test_too_many_resets_end_the_connection() -> None:
    wire = Wire(Checks().check, ConnectionLimits(resets_per_s=5))
    sent = b"".join(whole_call(2 * n + 1) + frames.reset(2 * n + 1, 8) for n in range(12))
    await wire.send(opening() + sent)
    assert goaway_code(wire.take()) == frames.ENHANCE_YOUR_CALM


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    checks = open_checks()
    wire = Wire(checks.check, ConnectionLimits(unsent_bytes=1_000))
    await wire.send(opening())
    wire.connection.pause_writing()
    wire.take()
    await wire.send(whole_call(1))
    assert b"cba" not in wire.take()
    wire.connection.resume_writing()
    assert grpc_message(b"cba") in wire.take()
    wire.transport.unsent_bytes = 1_001
    await wire.send(frames.frame(frames.PING, 0, 0, bytes(8)))
    assert wire.transport.is_closed


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - time itself is what is tested.
            await asyncio.sleep(0.02)


async def test_silence_and_slowness_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.transports.http2.connection.TICK_S", 0.02)
    silent = Wire(open_checks().check, ConnectionLimits(handshake_timeout_s=0.02))
    await wait_for(lambda: silent.transport.is_closed)
    quick = ConnectionLimits(handshake_timeout_s=1.0, request_timeout_s=0.3, idle_timeout_s=0.6)
    wire = Wire(open_checks().check, quick)
    await wire.send(opening() + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block()))
    wire.take()
    await wait_for(lambda: bool(wire.transport.written))
    assert reset_code(wire.take(), 1) == frames.CANCEL
    await wait_for(lambda: goaway_code(bytes(wire.transport.written)) == frames.NO_ERROR)
    await wire.send(frames.frame(frames.PING, frames.ACK, 0, DRAIN))
    assert wire.transport.is_closed


async def test_connections_are_bounded() -> None:
    wire = Wire(open_checks().check, ConnectionLimits(connections=1))
    intake = wire.intake
    other = Wire(open_checks().check, ConnectionLimits(connections=0))
    assert other.transport.is_closed
    assert goaway_code(other.take()) == frames.ENHANCE_YOUR_CALM
    assert len(intake.connections) == 1


async def test_a_fault_of_ours_ends_the_connection_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire(open_checks().check)
    await wire.send(opening())
    monkeypatch.setattr("authz.transports.http2.headers.HeaderDecoder.decode", lambda *_: 1 / 0)
    await wire.send(whole_call(1))
    assert goaway_code(wire.take()) == frames.INTERNAL_ERROR
