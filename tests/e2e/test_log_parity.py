"""Envoy's two logs make the same observations, and its administration rotates the file."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from authz.protos import ext_authz_pb2 as pb
from meter.errors import EnvoyUnavailable, InvalidRequest
from meter.holds.abandoned_check import UndecidedRequest
from meter.ingest.ending import EntryFacts, observation_from_facts
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ingest.log_file.lines import read_line
from meter.ingest.log_file.maintenance import (
    REOPEN_FAILED,
    STATS,
    UPTIME,
    WRITE_FAILED,
    FileMaintenance,
)
from meter.ingest.log_file.rotation import RotationBounds
from meter.ingest.stream.wire import facts_from_message
from meter.protos import access_log_pb2 as log_pb
from meter.usage.usage import Observation, Source
from tests.e2e.envoy.envoy_harness import (
    CHECK_TIMEOUT_S,
    Gateway,
    Pause,
    allow,
    error_json,
    running_gateway,
)
from tests.e2e.envoy.test_usage import USAGE, event, replies, streams
from tests.file_log import Followed
from tests.patience import WAIT_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Digits that survive a double and digits that do not, small, large, whole and nothing.
COSTS = ("0.000001234567", "1e-12", "123456.789012345", "0.12345678901234567", "25", "0", "5e-324")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


async def streamed(gateway: Gateway, hold_id: str) -> EntryFacts:
    """Return the observation that the meter makes of the stream's entry."""
    entry = await gateway.entries.of(hold_id)
    message = log_pb.StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry)
    (facts,) = facts_from_message(message.SerializeToString())
    return facts


async def in_file(gateway: Gateway, hold_id: str) -> EntryFacts:
    """Return the observation that the meter makes of the file's line."""
    (meaning,) = await meanings(gateway, hold_id.encode())
    assert isinstance(meaning, EntryFacts)
    return meaning


async def meanings(gateway: Gateway, holding: bytes) -> list[EntryFacts | UndecidedRequest | None]:
    """Return the meaning of the lines with this text, once there is one."""
    async with asyncio.timeout(WAIT_S):
        while True:
            text = (gateway.folder / "access.jsonl").read_bytes()
            whole = text[: text.rfind(b"\n") + 1].splitlines()
            found = [read_line(each).meaning for each in whole if holding in each]
            if found:
                return found
            await asyncio.sleep(0.02)


async def require_same(gateway: Gateway, hold_id: str) -> Observation:
    """Both logs told the same, field by field, of the request with this hold."""
    stream, file = await streamed(gateway, hold_id), await in_file(gateway, hold_id)
    assert file == stream
    # By this the second one is known again, and is not read any further.
    assert hash(file) == hash(stream)
    observation = observation_from_facts(file, Source.FILE)
    assert replace(observation, source=Source.STREAM) == observation_from_facts(
        stream, Source.STREAM
    )
    assert observation.hold_id == UUID(hold_id)
    return observation


def is_streaming(gateway: Gateway, hold_id: str) -> None:
    async def decide(_: pb.CheckRequest) -> pb.CheckResponse:
        response = allow(hold_id)
        response.dynamic_metadata.update({"is_streaming": True})
        return response

    gateway.decisions.answer = decide


@pytest.mark.parametrize("cost", COSTS)
async def test_a_json_reply_and_a_stream_of_every_cost(gateway: Gateway, cost: str) -> None:
    usage = json.dumps({**USAGE, "cost": "?"}).replace('"?"', cost)
    hold_id = gateway.reset()
    replies(gateway, f'{{"id":"gen-1","model":"m","usage":{usage}}}'.encode())
    await gateway.post()
    observation = await require_same(gateway, hold_id)
    assert observation.usage is not None and observation.usage.tokens.completion == 34
    assert observation.response_bytes > 0

    hold_id = gateway.reset()
    is_streaming(gateway, hold_id)
    streams(gateway, event(id="gen-1"), f'data: {{"usage":{usage}}}\n\n'.encode())
    await gateway.post()
    observation = await require_same(gateway, hold_id)
    assert observation.is_streaming and observation.usage is not None


Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(status: int, text: str = "{}", **headers: str) -> Behaviour:
    async def answer(_: web.Request) -> web.StreamResponse:
        body = text.encode()
        return web.Response(
            status=status, body=body, headers={"content-type": "application/json", **headers}
        )

    return answer


async def cut_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(event(id="gen-1"))
    assert request.transport is not None
    request.transport.close()
    return response


async def cut_json(request: web.Request) -> web.StreamResponse:
    headers = {"content-type": "application/json", "x-generation-id": "gen-h"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(b'{"choices":')
    assert request.transport is not None
    request.transport.close()
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


ENDINGS: dict[str, tuple[Behaviour, dict[str, Any]]] = {
    "a refusal of the provider": (answering(402), {"status_code": 503, "provider_status": 402}),
    "a bad request": (answering(400, error_json("bad")), {"provider_status": 400, "usage": None}),
    "a fault of the provider": (answering(500, "oops"), {"provider_status": 500, "usage": None}),
    "an answer of nothing": (answering(204, ""), {"provider_status": 204, "usage": None}),
    "usage that is none": (answering(200, '{"usage":7}'), {"provider_status": 200, "usage": None}),
    "no JSON": (answering(200, "{no"), {"usage": None}),
    "an id in the header": (
        answering(200, "{}", **{"x-generation-id": "gen-h"}),
        {"generation_id": "gen-h"},
    ),
    "an id in the body": (answering(200, '{"id":"gen-b"}'), {"generation_id": "gen-b"}),
    "a stream that is cut": (cut_stream, {"response_flags": "UPE", "generation_id": "gen-1"}),
    # Envoy answers an error of its own, without the provider's headers.
    "a JSON reply that is cut": (cut_json, {"generation_id": "gen-h", "provider_status": None}),
    "a provider that hangs up": (hang_up, {"response_flags": "UC", "provider_status": None}),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_every_other_ending(gateway: Gateway, name: str) -> None:
    hold_id = gateway.reset()
    gateway.provider.answer, expected = ENDINGS[name]
    with contextlib.suppress(aiohttp.ClientError):
        await gateway.post()
    observation = await require_same(gateway, hold_id)
    assert {field: getattr(observation, field) for field in expected} == expected


async def test_a_client_that_leaves_before_the_reply(gateway: Gateway) -> None:
    hold_id, pause = gateway.reset(), Pause()

    async def slow(_: web.Request) -> web.StreamResponse:
        await pause.wait()
        return web.Response(text="{}")

    gateway.provider.answer = slow
    await gateway.leave(pause.reached.wait())
    observation = await require_same(gateway, hold_id)
    pause.over.set()
    assert (observation.status_code, observation.response_flags) == (0, "DC")


async def test_a_client_that_leaves_in_mid_stream(gateway: Gateway) -> None:
    hold_id, pause = gateway.reset(), Pause()

    async def slow(request: web.Request) -> web.StreamResponse:
        headers = {"content-type": "text/event-stream", "x-generation-id": "gen-1"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(event(id="gen-1", text="héllo"))
        await pause.wait()
        return response

    gateway.provider.answer = slow
    await gateway.leave_in_reply()
    observation = await require_same(gateway, hold_id)
    pause.over.set()
    assert (observation.generation_id, observation.response_flags) == ("gen-1", "DC")


async def test_an_edit_that_cannot_be_made_reaches_nobody(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    gateway.edit_next(hold_id, [(50, 10, "x")])
    assert (await gateway.post())[0] == 503
    assert not (await require_same(gateway, hold_id)).reached_provider


async def test_a_client_that_leaves_during_the_check_is_undecided(gateway: Gateway) -> None:
    hold_id, pause = gateway.reset(), Pause()

    async def late(_: pb.CheckRequest) -> pb.CheckResponse:
        await pause.wait()
        return allow(hold_id)

    gateway.decisions.answer = late
    await gateway.leave(pause.reached.wait())
    assert await is_undecided(gateway)
    pause.over.set()


async def test_a_check_that_takes_too_long_is_undecided() -> None:
    pause = Pause()

    async def too_late(_: pb.CheckRequest) -> pb.CheckResponse:
        await pause.wait()
        return allow("f" * 32)

    async with running_gateway(check_timeout_s=CHECK_TIMEOUT_S) as gateway:
        gateway.decisions.answer = too_late
        assert (await gateway.post())[0] == 503
        pause.over.set()
        assert await is_undecided(gateway)


async def test_a_denial_is_decided(gateway: Gateway) -> None:
    gateway.reset()

    async def deny(_: pb.CheckRequest) -> pb.CheckResponse:
        response = pb.CheckResponse(status=pb.Status(code=7))
        response.denied_response.status.code = 402
        response.denied_response.body = error_json("insufficient_credit")
        return response

    gateway.decisions.answer = deny
    assert (await gateway.post())[0] == 402
    assert not await is_undecided(gateway)


async def is_undecided(gateway: Gateway) -> bool:
    """Return whether the request checked last ended undecided, by the id that authz saw."""
    http = gateway.decisions.checks[-1].attributes.request.http
    (asked,) = [each for each in http.header_map.headers if each.key == "x-request-id"]
    (meaning,) = await meanings(gateway, asked.raw_value)
    if meaning is None:
        return False
    assert isinstance(meaning, UndecidedRequest)
    assert str(meaning.request_id) == asked.raw_value.decode()
    return True


async def test_envoy_opens_a_renamed_log_anew_and_no_line_is_lost(gateway: Gateway) -> None:
    """A rotation under load, driven by the real parts against the real Envoy."""
    log = gateway.folder / "access.jsonl"
    followed = Followed(log)
    admin = EnvoyAdmin(f"unix:{gateway.folder}/admin.sock")
    bounds = RotationBounds(rotate_at_bytes=1, kept_files=1, least_uptime_s=0)
    maintenance = FileMaintenance(
        log, followed.follower, admin, bounds, followed.metrics, followed.clock
    )
    hold_ids: list[str] = []
    for _ in range(20):
        hold_ids.append(gateway.reset())
        await gateway.post()
        await followed.read_all()
        followed.clock.advance(1)
        await maintenance.maintain()
    async with asyncio.timeout(WAIT_S):
        while hold_ids[-1] not in {hold.hex for hold in followed.settled.arrived}:
            await followed.read_all()
            await asyncio.sleep(0.02)
    await maintenance.maintain()
    assert {UUID(hold_id) for hold_id in hold_ids} <= set(followed.settled.arrived)
    assert followed.counted("rotations_total") >= 3
    assert followed.counted("lines_total", kind="torn") == 0
    assert len(list(log.parent.glob("access.jsonl*"))) <= 1 + bounds.kept_files + 1


async def test_lines_that_envoy_cannot_write_are_counted(gateway: Gateway) -> None:
    """As on a full disk: only a counter of Envoy's tells."""
    log = gateway.folder / "access.jsonl"
    admin = EnvoyAdmin(f"unix:{gateway.folder}/admin.sock")
    kept = log.rename(log.with_name("kept"))
    log.symlink_to("/dev/full")
    try:
        await admin.reopen_logs()
        gateway.reset()
        await gateway.post()
        await until_counted(admin, WRITE_FAILED)
    finally:
        log.unlink()
        kept.rename(log)
        await admin.reopen_logs()


async def test_a_log_that_envoy_cannot_open_is_counted(gateway: Gateway) -> None:
    log = gateway.folder / "access.jsonl"
    admin = EnvoyAdmin(f"unix:{gateway.folder}/admin.sock")
    kept = log.rename(log.with_name("kept"))
    log.mkdir()
    try:
        await admin.reopen_logs()
        gateway.reset()
        await gateway.post()
        await until_counted(admin, REOPEN_FAILED)
    finally:
        log.rmdir()
        kept.rename(log)
        await admin.reopen_logs()
    hold_id = gateway.reset()
    await gateway.post()
    await in_file(gateway, hold_id)


async def until_counted(admin: EnvoyAdmin, name: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if (await admin.counters(STATS))[name]:
                return
            await asyncio.sleep(0.05)


async def test_envoys_own_counters_can_be_read(gateway: Gateway) -> None:
    admin = EnvoyAdmin(f"unix:{gateway.folder}/admin.sock")
    counters = await admin.counters(STATS)
    assert {WRITE_FAILED, REOPEN_FAILED} <= set(counters)
    assert counters["filesystem.write_completed"] > 0
    assert UPTIME in counters


async def test_an_administration_that_is_not_there_says_so(tmp_path: Path) -> None:
    for address in (f"unix:{tmp_path}/none.sock", "127.0.0.1:1"):
        with pytest.raises(EnvoyUnavailable):
            await EnvoyAdmin(address).reopen_logs()
    with pytest.raises(InvalidRequest):
        EnvoyAdmin("nowhere")
