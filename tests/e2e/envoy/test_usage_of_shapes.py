"""Usage of replies that have another shape than chat: Responses, Messages, and other units."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.e2e.envoy.envoy_harness import Gateway, metadata, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIECES = (1, 7, 64, 100_000)
COST = {"cost": 1.5e-05, "cost_details": {"upstream_inference_cost": 0.75}, "is_byok": False}
FLAT_COST = {"cost": 1.5e-05, "upstream_inference_cost": 0.75, "is_byok": False}
RESPONSE_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "output_tokens": 34,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 46,
    **COST,
}
MESSAGE_USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 3,
    "output_tokens": 34,
    "output_tokens_details": {"thinking_tokens": 5},
    **COST,
}
RESPONSE: dict[str, Any] = {"id": "resp-1", "object": "response", "error": None, "usage": None}
START_USAGE = {"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


def replies(gateway: Gateway, body: bytes, content_type: str, piece: int = 100_000) -> None:
    """Have the provider answer with this body, so many bytes in each write."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": content_type})
        await response.prepare(request)
        for at in range(0, len(body), piece):
            await response.write(body[at : at + piece])
        return response

    gateway.provider.answer = answer


def events(*said: dict[str, Any]) -> bytes:
    """Return an event stream as both interfaces write it, with the name of each event."""
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in said)


async def noted(gateway: Gateway, hold_id: str) -> dict[str, Any]:
    """Return what both logs say of the usage."""
    found = metadata(await gateway.entries.of(hold_id)).get("tollkeeper.usage", {})
    assert ((await gateway.logged_of(hold_id))["usage"] or {}) == found
    return found


JSON = [
    (
        "responses",
        {**RESPONSE, "usage": RESPONSE_USAGE},
        {
            "id": "resp-1",
            "prompt_tokens": 12,
            "completion_tokens": 34,
            "cached_tokens": 3,
            "cache_write_tokens": 2,
            "reasoning_tokens": 5,
            **FLAT_COST,
        },
    ),
    (
        "responses",
        {**RESPONSE, "error": {"code": "server_error", "message": "No."}},
        {"id": "resp-1", "has_error": True},
    ),
    (
        "messages",
        {"id": "msg-1", "type": "message", "usage": MESSAGE_USAGE},
        {
            "id": "msg-1",
            "fresh_tokens": 12,
            "completion_tokens": 34,
            "cached_tokens": 3,
            "cache_write_tokens": 2,
            "reasoning_tokens": 5,
            **FLAT_COST,
        },
    ),
    (
        "messages",
        {"type": "error", "error": {"type": "overloaded_error", "message": "No."}},
        {"has_error": True},
    ),
    (
        "rerank",
        {"id": "gen-1", "usage": {"search_units": 1, "total_tokens": 9, "cost": 0.002}},
        {"id": "gen-1", "search_units": 1, "cost": 0.002},
    ),
    (
        "images/generations",
        {"created": 1, "usage": {"input_tokens": 5, "output_tokens": 6, "cost": 0.04}},
        {"prompt_tokens": 5, "completion_tokens": 6, "cost": 0.04},
    ),
    (
        "images",
        {"usage": {"prompt_tokens": 5, "completion_tokens": 6, "cost": 0.04}},
        {"prompt_tokens": 5, "completion_tokens": 6, "cost": 0.04},
    ),
    (
        "audio/transcriptions",
        {"text": "a", "usage": {"seconds": 9.2, "cost": 0.0001}},
        {"seconds": 9.2, "cost": 0.0001},
    ),
]


@pytest.mark.parametrize("prefix", ["/v1/", "/api/v1/"])
@pytest.mark.parametrize(("path", "reply", "expected"), JSON)
async def test_json_replies_tell_their_usage(
    gateway: Gateway, prefix: str, path: str, reply: dict[str, Any], expected: dict[str, Any]
) -> None:
    hold_id = gateway.reset()
    body = json.dumps(reply).encode()
    replies(gateway, body, "application/json; charset=utf-8")
    assert (await gateway.post(path=prefix + path))[2] == body
    assert await noted(gateway, hold_id) == expected


RESPONSE_EVENTS = events(
    {"type": "response.created", "response": RESPONSE},
    {"type": "response.output_text.delta", "delta": "héllo €", "item_id": "item-1"},
    {"type": "response.completed", "response": {**RESPONSE, "usage": RESPONSE_USAGE}},
)
MESSAGE_EVENTS = events(
    {"type": "message_start", "message": {"id": "msg-1", "usage": START_USAGE}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "é"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": MESSAGE_USAGE},
    {"type": "message_stop"},
)


@pytest.mark.parametrize("piece", PIECES)
async def test_a_stream_of_responses_tells_its_usage(gateway: Gateway, piece: int) -> None:
    hold_id = gateway.reset()
    replies(gateway, RESPONSE_EVENTS, "text/event-stream", piece)
    assert (await gateway.post(path="/v1/responses"))[2] == RESPONSE_EVENTS
    found = await noted(gateway, hold_id)
    assert json.loads(found.pop("usage_json")) == RESPONSE_USAGE
    assert json.loads(found.pop("first_usage_json")) == RESPONSE_USAGE
    assert found == {"id": "resp-1"}


@pytest.mark.parametrize("piece", PIECES)
async def test_a_stream_of_messages_tells_its_usage(gateway: Gateway, piece: int) -> None:
    hold_id = gateway.reset()
    replies(gateway, MESSAGE_EVENTS, "text/event-stream; charset=utf-8", piece)
    assert (await gateway.post(path="/v1/messages"))[2] == MESSAGE_EVENTS
    found = await noted(gateway, hold_id)
    assert json.loads(found.pop("start_usage_json")) == START_USAGE
    assert json.loads(found.pop("usage_json")) == MESSAGE_USAGE
    assert json.loads(found.pop("first_usage_json")) == MESSAGE_USAGE
    assert found == {"id": "msg-1"}


ERROR = {"type": "api_error", "code": "server_error", "message": "No."}


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("responses", {"type": "response.failed", "response": {**RESPONSE, "error": ERROR}}),
        ("responses", {"type": "error", "code": "server_error", "message": "No."}),
        ("responses", {"type": "error", "error": ERROR}),
        ("messages", {"type": "error", "error": ERROR}),
    ],
)
async def test_an_error_within_a_stream_is_noted(
    gateway: Gateway, path: str, last: dict[str, Any]
) -> None:
    hold_id = gateway.reset()
    replies(gateway, events({"type": "ping"}, last), "text/event-stream")
    await gateway.post(path=f"/v1/{path}")
    assert "No." in (await noted(gateway, hold_id))["error_json"]


async def test_sound_passes_unread(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    sound = bytes(range(256)) * 4096
    replies(gateway, sound, "audio/mpeg")
    assert (await gateway.post(path="/v1/audio/speech"))[2] == sound
    assert await noted(gateway, hold_id) == {}


async def test_a_form_with_a_file_reaches_decision_and_provider_whole(gateway: Gateway) -> None:
    gateway.reset()
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    form = head + bytes(range(256)) * 1_000 + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert (await gateway.post(form, "/v1/audio/transcriptions", headers=headers))[0] == 200
    (received,) = gateway.provider.requests
    assert (received.body, received.header("content-type")) == (form, headers["content-type"])
    assert gateway.decisions.checks[0].attributes.request.http.raw_body == form


async def test_the_version_of_messages_is_ours_and_their_betas_stay_here(gateway: Gateway) -> None:
    gateway.reset()
    named = {"anthropic-version": "2099-01-01", "anthropic-beta": "context-1m-2025-08-07"}
    for path in ("/v1/messages", "/v1/responses"):
        await gateway.post(path=path, headers=named)
    messages, responses = gateway.provider.requests
    assert messages.header("anthropic-version") == "2023-06-01"
    assert {one.header("anthropic-beta") for one in (messages, responses)} == {None}
    assert responses.header("anthropic-version") is None
