"""The provider's cost reaches the meter, and its bytes reach the client unchanged."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.e2e.envoy.envoy_harness import Gateway, Pause, metadata, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "total_tokens": 46,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 5},
    "cost": 1.234567e-06,
    "cost_details": {"upstream_inference_cost": 0.75},
    "is_byok": False,
}
FLAT_USAGE = {
    "id": "gen-1",
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "cached_tokens": 3,
    "cache_write_tokens": 2,
    "reasoning_tokens": 5,
    "cost": 1.234567e-06,
    "upstream_inference_cost": 0.75,
    "is_byok": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


def replies(gateway: Gateway, body: bytes, content_type: str = "application/json") -> None:
    """Have the provider answer with this body."""

    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"content-type": content_type, "x-generation-id": "gen-1"}
        return web.Response(body=body, headers=headers)

    gateway.provider.answer = answer


def streams(gateway: Gateway, *pieces: bytes, pause_s: float = 0.0) -> None:
    """Have the provider answer with these pieces of an event stream, one write each."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {"content-type": "text/event-stream", "x-generation-id": "gen-1"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        return response

    gateway.provider.answer = answer


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


STREAM = (
    b": OPENROUTER PROCESSING\n\n"
    + event(id="gen-1", choices=[{"delta": {"content": "héllo €"}}])
    + event(id="gen-1", choices=[], usage=USAGE)
    + b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
async def test_usage_of_a_json_reply_is_logged_twice(gateway: Gateway, content_type: str) -> None:
    hold_id = gateway.reset()
    body = json.dumps({"id": "gen-1", "model": "openai/gpt-4o", "usage": USAGE}).encode()
    replies(gateway, body, content_type)
    status, _, received = await gateway.post()
    assert (status, received) == (200, body)
    entry = await gateway.entries.of(hold_id)
    assert metadata(entry)["tollkeeper.usage"] == FLAT_USAGE
    assert entry.response.response_headers == {"x-generation-id": "gen-1"}
    line = await gateway.logged_of(hold_id)
    assert (line["usage"], line["generation_id"]) == (FLAT_USAGE, "gen-1")
    assert (line["account_id"], line["code"], line["flags"]) == ("acme", 200, "-")


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
async def test_a_stream_cut_anywhere_keeps_bytes_and_usage(gateway: Gateway, size: int) -> None:
    hold_id = gateway.reset()
    pieces = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    streams(gateway, *pieces)
    assert (await gateway.post())[2] == STREAM
    usage = metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]
    assert usage["id"] == "gen-1"
    assert json.loads(usage["usage_json"]) == USAGE
    assert (await gateway.logged_of(hold_id))["usage"] == usage


async def test_an_error_in_mid_stream_is_noted(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    error = {"code": 502, "message": "Provider disconnected"}
    streams(gateway, event(id="gen-1"), event(id="gen-1", error=error))
    await gateway.post()
    usage = metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]
    assert json.loads(usage["error_json"]) == error


async def test_an_event_over_four_mib_loses_its_own_usage_only(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    large = event(id="gen-1", image="i" * 5 * MIB)
    stream = event(id="gen-1") + large + event(id="gen-1", usage=USAGE)
    streams(gateway, stream)
    assert (await gateway.post())[2] == stream
    assert "usage_json" in metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]


async def test_usage_behind_an_event_of_two_mib_is_found(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    stream = event(id="gen-1", image="i" * 2 * MIB) + event(id="gen-1", blob="b" * MIB, usage=USAGE)
    streams(gateway, stream)
    assert (await gateway.post())[2] == stream
    assert "usage_json" in metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]


async def test_the_first_event_does_not_wait_for_the_second(gateway: Gateway) -> None:
    gateway.reset()
    streams(gateway, event(id="gen-1"), event(id="gen-1", usage=USAGE), pause_s=1.0)
    loop = asyncio.get_running_loop()
    async with gateway.client.post(
        gateway.url + "/v1/chat/completions",
        data=b"{}",
        headers={"content-type": "application/json"},
    ) as reply:
        assert await reply.content.readany() == event(id="gen-1")
        first_at_s = loop.time()
        assert await reply.content.readany() == event(id="gen-1", usage=USAGE)
        # Held back until the second came, both would have arrived together.
        assert loop.time() - first_at_s > 0.5


async def test_a_client_that_leaves_keeps_hold_and_generation(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    streams(gateway, event(id="gen-1"), *[b": wait\n\n"] * 50, event(usage=USAGE), pause_s=0.05)
    async with gateway.client.post(
        gateway.url + "/v1/chat/completions",
        data=b"{}",
        headers={"content-type": "application/json"},
    ) as reply:
        await reply.content.readany()
        reply.close()
    entry = await gateway.entries.of(hold_id)
    assert entry.common_properties.response_flags.downstream_connection_termination
    assert metadata(entry)["tollkeeper.usage"] == {"id": "gen-1"}
    assert entry.response.response_headers == {"x-generation-id": "gen-1"}
    line = await gateway.logged_of(hold_id)
    assert (line["flags"], line["generation_id"]) == ("DC", "gen-1")


async def test_a_client_that_leaves_before_the_answer_keeps_its_hold(gateway: Gateway) -> None:
    hold_id = gateway.reset()

    pause = Pause()

    async def slow(_: web.Request) -> web.StreamResponse:
        await pause.wait()
        return web.Response(text="{}", content_type="application/json")

    gateway.provider.answer = slow
    await gateway.leave(pause.reached.wait())
    entry = await gateway.entries.of(hold_id)
    assert entry.common_properties.response_flags.downstream_connection_termination
    pause.over.set()
    assert "tollkeeper.usage" not in metadata(entry)
    assert entry.response.response_code.value == 0


async def test_a_stream_cut_by_the_provider_is_flagged(gateway: Gateway) -> None:
    hold_id = gateway.reset()

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event(id="gen-1"))
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.close()
        return response

    gateway.provider.answer = cut
    with pytest.raises(Exception, match=r"(?i)payload|transfer|disconnect|reset"):
        await gateway.post()
    entry = await gateway.entries.of(hold_id)
    # A missing last chunk is a protocol error to Envoy: UPE, not UC.
    assert entry.common_properties.response_flags.upstream_protocol_error
    assert metadata(entry)["tollkeeper.usage"] == {"id": "gen-1"}


@pytest.mark.parametrize("size_mib", [30, 64])
async def test_a_large_json_reply_passes_and_is_read(gateway: Gateway, size_mib: int) -> None:
    """Over ext_authz's own limit, which would cap replies too without `reply_room`."""
    hold_id = gateway.reset()
    body = b'{"id":"gen-1","data":"' + b"a" * size_mib * MIB + b'","usage":{"cost":0.25}}'
    replies(gateway, body)
    status, _, received = await gateway.post(path="/v1/embeddings")
    assert status == 200
    assert received == body
    assert metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]["cost"] == 0.25


@pytest.mark.parametrize(
    "text",
    ["0.000001234567", "1.5e-05", "12.345678901234", "1e-12", "0.00012345678901234567", "0", "3"],
)
async def test_cost_survives_digit_for_digit(gateway: Gateway, text: str) -> None:
    """Exact to 15 significant digits, and to all digits of a number printed from a double."""
    hold_id = gateway.reset()
    body = b'{"id":"gen-1","usage":{"cost":%s}}' % text.encode()
    replies(gateway, body)
    await gateway.post()
    usage = metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]
    assert Decimal(repr(usage["cost"])) == Decimal(text)

    hold_id = gateway.reset()
    streams(gateway, b"data: " + body + b"\n\n")
    await gateway.post()
    usage = metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]
    parsed = json.loads(usage["usage_json"], parse_float=Decimal)
    assert Decimal(parsed["cost"]) == Decimal(text)


async def test_a_digit_past_what_a_double_holds_is_lost(gateway: Gateway) -> None:
    """The known limit: 17 digits that no double prints; the file says the same as the stream."""
    hold_id = gateway.reset()
    replies(gateway, b'{"id":"gen-1","usage":{"cost":0.12345678901234567}}')
    await gateway.post()
    usage = metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]
    assert repr(usage["cost"]) == "0.12345678901234566"
    assert (await gateway.logged_of(hold_id))["usage"]["cost"] == usage["cost"]


async def test_null_and_text_costs_are_not_numbers(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    replies(gateway, b'{"id":"gen-1","usage":{"cost":null,"prompt_tokens":"7"}}')
    await gateway.post()
    usage = metadata(await gateway.entries.of(hold_id))["tollkeeper.usage"]
    assert usage == {"id": "gen-1", "prompt_tokens": "7"}


async def test_a_reply_that_is_not_json_passes_without_usage(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    replies(gateway, b"{not json")
    assert (await gateway.post())[2] == b"{not json"
    entry = await gateway.entries.of(hold_id)
    assert metadata(entry)["tollkeeper.usage"] == {"id": "gen-1"}, "from the header"
    assert entry.response.response_headers == {"x-generation-id": "gen-1"}
