"""Promises of every transport to checks and to a real gRPC client."""

import asyncio
import os
import socket as sockets
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from authz.transports.grpc_aio import GrpcAioTransport
from authz.transports.http2 import Http2Transport
from authz.transports.transport import PATH, SERVICE, Answer, Transport
from tests.patience import WAIT_S

TRANSPORTS: list[Callable[[], Transport]] = [Http2Transport, GrpcAioTransport]

if TYPE_CHECKING:
    Ask = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


def method(channel: grpc.aio.Channel, path: str = PATH) -> "Ask":
    return channel.unary_unary(path)


class WaitingCheck:
    """A check that waits until it may answer, and remembers who left."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.was_cancelled = asyncio.Event()
        self.taken_back = 0

    async def check(self, payload: bytes) -> Answer:
        self.arrived.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        if payload == b"fault":
            raise RuntimeError("planted")
        return Answer(payload[::-1], self.take_back)

    def take_back(self) -> None:
        self.taken_back += 1


@pytest.fixture(params=TRANSPORTS, ids=["http2", "grpc_aio"])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param()
    return made


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"unix:{tmp_path_factory.mktemp('s')}/a.sock"


@pytest.fixture
async def channel(socket: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(socket, options=options) as made:
        yield made


@pytest.fixture
async def waiting(transport: Transport, socket: str) -> AsyncIterator[WaitingCheck]:
    made = WaitingCheck()
    await transport.start(made.check, socket)
    yield made
    await transport.stop(0)


@pytest.fixture
def ask(channel: grpc.aio.Channel) -> "Ask":
    return method(channel)


async def test_answers_and_takes_nothing_back(waiting: WaitingCheck, ask: "Ask") -> None:
    waiting.may_answer.set()
    assert await ask(b"abc") == b"cba"
    assert await ask(b"") == b""
    assert waiting.taken_back == 0


async def test_the_socket_is_private(waiting: WaitingCheck, socket: str) -> None:
    mode = Path(socket.removeprefix("unix:")).stat().st_mode
    assert stat.S_IMODE(mode) == 0o660


async def test_carries_a_body_of_24_mib(waiting: WaitingCheck, ask: "Ask") -> None:
    waiting.may_answer.set()
    payload = os.urandom(24 * 2**20)
    assert await ask(payload) == payload[::-1]


async def test_a_message_over_the_limit_is_refused(waiting: WaitingCheck, ask: "Ask") -> None:
    waiting.may_answer.set()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(bytes(33 * 2**20))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await ask(b"abc") == b"cba"


async def test_answers_200_at_once(waiting: WaitingCheck, ask: "Ask") -> None:
    waiting.may_answer.set()
    asked = [str(number).encode() for number in range(200)]
    answers = await asyncio.gather(*(ask(one) for one in asked))
    assert list(answers) == [one[::-1] for one in asked]


async def test_a_client_that_leaves_cancels_the_check(waiting: WaitingCheck, ask: "Ask") -> None:
    call = ask(b"x")
    await waiting.arrived.wait()
    call.cancel()
    async with asyncio.timeout(WAIT_S):
        await waiting.was_cancelled.wait()


async def test_a_deadline_cancels_the_check(waiting: WaitingCheck, ask: "Ask") -> None:
    timeout_s = 0.2
    # On a busy machine a call may end before its server hears of it.
    while not waiting.arrived.is_set():
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await ask(b"x", timeout=timeout_s)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        timeout_s *= 2
    async with asyncio.timeout(WAIT_S):
        await waiting.was_cancelled.wait()


@pytest.mark.parametrize("path", ["/other.Service/Check", f"/{SERVICE}/Other", "/"])
async def test_another_method_is_unimplemented(
    waiting: WaitingCheck, channel: grpc.aio.Channel, path: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await method(channel, path)(b"x")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not waiting.arrived.is_set()


async def test_a_check_that_raises_is_an_error_and_tells_nothing(
    waiting: WaitingCheck, ask: "Ask"
) -> None:
    waiting.may_answer.set()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ask(b"fault")
    assert failed.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert await ask(b"abc") == b"cba"


async def test_stopping_lets_checks_under_way_finish(
    waiting: WaitingCheck, ask: "Ask", transport: Transport
) -> None:
    call = ask(b"abc")
    await waiting.arrived.wait()
    stopping = asyncio.create_task(transport.stop(WAIT_S))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    waiting.may_answer.set()
    assert await call == b"cba"
    await stopping


async def test_stopping_cancels_what_outlasts_the_grace(
    waiting: WaitingCheck, ask: "Ask", transport: Transport
) -> None:
    call = ask(b"abc")
    await waiting.arrived.wait()
    await transport.stop(0.1)
    async with asyncio.timeout(WAIT_S):
        await waiting.was_cancelled.wait()
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_a_killed_process_leaves_a_socket_that_is_replaced(
    transport: Transport, socket: str, ask: "Ask"
) -> None:
    with sockets.socket(sockets.AF_UNIX) as stale:
        stale.bind(socket.removeprefix("unix:"))
    waiting = WaitingCheck()
    waiting.may_answer.set()
    await transport.start(waiting.check, socket)
    assert await ask(b"abc") == b"cba"
    await transport.stop(0)


async def test_listens_on_tcp(transport: Transport, unused_tcp_port: int) -> None:
    waiting = WaitingCheck()
    waiting.may_answer.set()
    address = f"127.0.0.1:{unused_tcp_port}"
    await transport.start(waiting.check, address)
    async with grpc.aio.insecure_channel(address) as channel:
        assert await method(channel)(b"abc") == b"cba"
    await transport.stop(0)


async def test_an_address_that_cannot_be_had_is_an_os_error(transport: Transport) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        await transport.start(WaitingCheck().check, "unix:/nowhere/at/all/a.sock")
