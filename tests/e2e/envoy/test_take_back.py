"""Clients that leave at random moments, through a real Envoy: which holds may be released?"""

import asyncio
import random
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from aiohttp import web

from authz.protos import ext_authz_pb2 as pb
from tests.e2e.envoy.envoy_harness import NAMESPACE, Gateway, allow, metadata, running_gateway
from tests.patience import WAIT_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS = 64
ROUNDS = 12
LONGEST_STAY_S = 0.012
# Enough that each of Envoy's two workers gets some.
LATER_REQUESTS = 16
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
    b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)
ABORT = struct.pack("ii", 1, 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


@dataclass
class Holds:
    """Decides after a random moment, and keeps the holds as the books would."""

    seed: random.Random
    placed: set[str] = field(default_factory=set)
    cancelled: int = 0

    async def decide(self, _: pb.CheckRequest) -> pb.CheckResponse:
        try:
            await asyncio.sleep(self.seed.random() * 0.004)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        hold_id = secrets.token_hex(16)
        self.placed.add(hold_id)
        response = allow(hold_id)
        header = response.ok_response.headers.add()
        header.header.key, header.header.value = "x-hold", hold_id
        return response


async def leave_early(port: int, seed: random.Random) -> None:
    """Ask, and be gone at a random moment: politely or with a reset."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await asyncio.sleep(seed.random() * LONGEST_STAY_S)
    if seed.random() < 0.5:
        made = writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    writer.transport.abort()


async def slow_reply(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.001)
    return web.json_response({"id": "gen", "usage": {"cost": 0.5}})


async def test_a_hold_is_released_just_where_nothing_went_up(gateway: Gateway) -> None:
    seed = random.Random(7)
    gateway.reset()
    holds = Holds(seed)
    gateway.decisions.answer, gateway.provider.answer = holds.decide, slow_reply
    for _ in range(ROUNDS):
        await asyncio.gather(*(leave_early(gateway.port, seed) for _ in range(CONNECTIONS)))
    await until_logged(gateway, holds)
    told = logged_holds(gateway)
    went_up = {received.header("x-hold") for received in gateway.provider.requests}
    taken_back = gateway.decisions.taken_back
    open_holds = holds.placed - set(taken_back)
    assert taken_back and holds.cancelled and went_up
    assert len(taken_back) == len(set(taken_back))
    assert not went_up & set(taken_back)
    assert not told & set(taken_back)
    assert not open_holds - told


def logged_holds(gateway: Gateway) -> set[str]:
    """The holds that the log stream names."""
    spaces = (metadata(entry).get(NAMESPACE, {}) for entry in gateway.entries.seen)
    return {space["hold_id"] for space in spaces if "hold_id" in space}


async def until_logged(gateway: Gateway, holds: Holds) -> None:
    """Wait until every request has ended, authz knows of its end, and its entry is here."""
    async with asyncio.timeout(WAIT_S):
        while await gateway.counter("http.edge.downstream_rq_active"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        # Checks and entries of one worker come in order: these come after all the others.
        before = set(holds.placed)
        for _ in range(LATER_REQUESTS):
            await gateway.post(headers={"connection": "close"})
        while not holds.placed - before <= logged_holds(gateway):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
