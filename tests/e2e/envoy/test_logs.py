"""Both access logs tell the meter the same: each fact of the stream stands in the file too."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from authz.protos import ext_authz_pb2 as pb
from meter.ingest.stream.wire import short_flags
from meter.protos import access_log_pb2 as log_pb
from meter.usage.response_flags import join_flags
from tests.e2e.envoy.envoy_harness import (
    NAMESPACE,
    Gateway,
    Pause,
    allow,
    error_json,
    metadata,
    running_gateway,
)
from tests.e2e.envoy.test_usage import STREAM, USAGE, replies, streams
from tests.patience import WAIT_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

FROM_PROVIDER = "cluster.provider.upstream_cx_rx_bytes_total"
# The short line of an ordinary end leaves out what is the same for all of them.
OF_ORDINARY_ENDS = {"upstream_status": None}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


def facts_of_entry(entry: log_pb.HTTPAccessLogEntry) -> dict[str, Any]:
    """Return what the meter reads of a gRPC entry, in the names of the file."""
    common, response = entry.common_properties, entry.response
    spaces = metadata(entry)
    decision = spaces.get(NAMESPACE, {})
    started = datetime.fromtimestamp(common.start_time.seconds, UTC)
    started += timedelta(microseconds=common.start_time.nanos // 1000)
    return {
        "start_time": started.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "code": response.response_code.value,
        "flags": join_flags(short_flags(common.response_flags)) or "-",
        "details": response.response_code_details,
        "duration_ms": _ms(common.duration),
        "upstream_sent_ms": _optional_ms(common, "time_to_first_upstream_tx_byte"),
        "first_upstream_byte_ms": _optional_ms(common, "time_to_first_upstream_rx_byte"),
        "request_bytes": entry.request.request_body_bytes,
        "response_bytes": response.response_body_bytes,
        "request_id": common.stream_id,
        "generation_id": response.response_headers.get("x-generation-id"),
        "hold_id": decision.get("hold_id"),
        "is_streaming": decision.get("is_streaming"),
        "usage": spaces.get("tollkeeper.usage"),
        "upstream_status": spaces.get("tollkeeper.upstream", {}).get("status"),
    }


def _ms(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def _optional_ms(common: log_pb.AccessLogCommon, field: str) -> int | None:
    return _ms(getattr(common, field)) if common.HasField(field) else None


async def require_same(gateway: Gateway, hold_id: str) -> dict[str, Any]:
    """Compare both logs of one request, and return the line of the file."""
    facts = facts_of_entry(await gateway.entries.of(hold_id))
    line = await gateway.logged_of(hold_id)
    is_ordinary = (line["code"], line["flags"]) == (200, "-")
    assert is_ordinary == ("route" not in line)
    read = {**(OF_ORDINARY_ENDS if is_ordinary else {}), **line}
    assert {name: read[name] for name in facts} == facts
    return line


def allow_streaming(gateway: Gateway, hold_id: str) -> None:
    async def decide(_: pb.CheckRequest) -> pb.CheckResponse:
        response = allow(hold_id)
        response.dynamic_metadata.update({"is_streaming": True})
        return response

    gateway.decisions.answer = decide


@pytest.mark.parametrize(
    "cost",
    ["0.000123456789012", "1.234567e-06", "0.1", "1e-12", "5e-324", "123456.789012345", "0", "25"],
)
async def test_a_json_reply(gateway: Gateway, cost: str) -> None:
    hold_id = gateway.reset()
    body = json.dumps({"id": "gen-1", "model": "m", "usage": {**USAGE, "cost": "?"}})
    replies(gateway, body.replace('"?"', cost).encode())
    await gateway.post(b'{"model": "m"}')
    line = await require_same(gateway, hold_id)
    assert line["usage"]["cost"] == float(cost)
    assert line["first_upstream_byte_ms"] >= line["upstream_sent_ms"] >= 0


async def test_a_stream(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    allow_streaming(gateway, hold_id)
    streams(gateway, STREAM)
    await gateway.post()
    assert (await require_same(gateway, hold_id))["is_streaming"] is True


async def test_a_refusal_of_the_provider(gateway: Gateway) -> None:
    hold_id = gateway.reset()

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=402, text="{}", content_type="application/json")

    gateway.provider.answer = refuse
    await gateway.post()
    line = await require_same(gateway, hold_id)
    assert (line["code"], line["upstream_status"]) == (503, 402)


async def test_a_provider_that_cuts_the_stream(gateway: Gateway) -> None:
    hold_id = gateway.reset()

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        assert request.transport is not None
        request.transport.close()
        return response

    gateway.provider.answer = cut
    with pytest.raises(aiohttp.ClientError):
        await gateway.post()
    assert (await require_same(gateway, hold_id))["flags"] != "-"


@pytest.mark.parametrize("has_headers", [True, False])
async def test_a_client_that_leaves(gateway: Gateway, has_headers: bool) -> None:
    hold_id, pause = gateway.reset(), Pause()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-generation-id": "gen-1"})
        if has_headers:
            await response.prepare(request)
            await response.write(b"x")
        await pause.wait()
        return response

    gateway.provider.answer = slow
    if has_headers:
        await gateway.leave_in_reply()
    else:
        await gateway.leave(pause.reached.wait())
    line = await require_same(gateway, hold_id)
    pause.over.set()
    assert (line["flags"], line["generation_id"]) == ("DC", "gen-1" if has_headers else None)


@pytest.mark.parametrize("blanks", [b"", b" \n" * 50])
async def test_the_generation_id_is_kept_though_the_client_left_while_envoy_buffered_the_reply(
    gateway: Gateway, blanks: bytes
) -> None:
    hold_id, pause = gateway.reset(), Pause()
    before = await gateway.counter(FROM_PROVIDER)

    async def slow(request: web.Request) -> web.StreamResponse:
        # As OpenRouter answers: headers at once, blanks while the model thinks, then the body.
        headers = {"content-type": "application/json", "x-generation-id": "gen-1"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if blanks:
            await response.write(blanks)
        await pause.wait()
        return response

    async def envoy_has_headers() -> None:
        while await gateway.counter(FROM_PROVIDER) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    gateway.provider.answer = slow
    await gateway.leave(envoy_has_headers())
    line = await require_same(gateway, hold_id)
    pause.over.set()
    assert (line["flags"], line["generation_id"]) == ("DC", "gen-1")
    assert line["usage"] == {"id": "gen-1"}


async def test_the_generation_id_is_kept_though_the_client_left_in_mid_stream(
    gateway: Gateway,
) -> None:
    hold_id = gateway.reset()
    allow_streaming(gateway, hold_id)
    pause = Pause()

    async def slow(request: web.Request) -> web.StreamResponse:
        headers = {"content-type": "text/event-stream", "x-generation-id": "gen-1"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b": OPENROUTER PROCESSING\n\n")
        await pause.wait()
        return response

    gateway.provider.answer = slow
    await gateway.leave_in_reply()
    line = await require_same(gateway, hold_id)
    pause.over.set()
    assert (line["flags"], line["generation_id"]) == ("DC", "gen-1")


async def logged_by_id(gateway: Gateway, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S):
        while True:
            for line in gateway.logged():
                if line["request_id"] == request_id:
                    return line
            await asyncio.sleep(0.02)


def asked_id(gateway: Gateway) -> str:
    """The request id as the check has it."""
    http = gateway.decisions.checks[-1].attributes.request.http
    (found,) = [h for h in http.header_map.headers if h.key == "x-request-id"]
    return found.raw_value.decode()


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_request_without_a_decision_is_named_as_authz_knew_it(
    gateway: Gateway, leaves: bool
) -> None:
    gateway.reset()
    pause = Pause()
    given = "11111111-2222-3333-4444-555555555555"

    async def late(_: pb.CheckRequest) -> pb.CheckResponse:
        await pause.wait()
        return allow("f" * 32)

    gateway.decisions.answer = late
    headers = {"x-request-id": given}
    if leaves:
        await gateway.leave(pause.reached.wait(), headers=headers)
    else:
        status, answered, _ = await gateway.post(headers=headers)
        assert (status, answered["x-request-id"]) == (503, asked_id(gateway))
    request_id = asked_id(gateway)
    assert request_id != given
    line = await logged_by_id(gateway, request_id)
    pause.over.set()
    assert (line["hold_id"], line["upstream_sent_ms"], line["route"]) == (None, None, "inference")
    assert line["flags"] == ("DC" if leaves else "UAEX")
    assert line["code"] == (0 if leaves else 503)


async def test_a_denial_is_told_from_a_missing_decision(gateway: Gateway) -> None:
    gateway.reset()

    async def deny(_: pb.CheckRequest) -> pb.CheckResponse:
        response = pb.CheckResponse(status=pb.Status(code=7))
        response.denied_response.status.code = 402
        response.denied_response.body = error_json("insufficient_credit")
        return response

    gateway.decisions.answer = deny
    await gateway.post()
    line = await logged_by_id(gateway, asked_id(gateway))
    assert (line["details"], line["hold_id"], line["code"]) == ("ext_authz_denied", None, 402)


@pytest.mark.parametrize("way", ["settled", "free", "refused", "left", "unheld"])
async def test_each_request_has_one_line_and_only_ordinary_ends_a_short_one(
    gateway: Gateway, way: str
) -> None:
    hold_id, pause = gateway.reset(), Pause()

    async def ends(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404 if way == "refused" else 200)

    async def waits(request: web.Request) -> web.StreamResponse:
        await pause.wait()
        return await ends(request)

    async def decide(_: pb.CheckRequest) -> pb.CheckResponse:
        response = allow(hold_id)
        if way == "unheld":
            del response.dynamic_metadata.fields["hold_id"]
        return response

    gateway.decisions.answer = decide
    if way == "left":
        gateway.provider.answer = waits
        await gateway.leave(pause.reached.wait())
    else:
        if way != "settled":
            gateway.provider.answer = ends
        await gateway.post()
    request_id = asked_id(gateway)
    await logged_by_id(gateway, request_id)
    pause.over.set()
    # The lines of a later request stand behind all of this one.
    later = gateway.reset()
    await gateway.post()
    await gateway.logged_of(later)
    (line,) = [one for one in gateway.logged() if one["request_id"] == request_id]
    assert ("route" not in line) == (way in ("settled", "free"))
    assert line["hold_id"] == (None if way == "unheld" else hold_id)
