"""The replies to a client when something refuses, fails or is away."""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web

from authz.protos import ext_authz_pb2 as pb
from tests.e2e.envoy.envoy_harness import (
    CHECK_TIMEOUT_S,
    PROVIDER_KEY,
    Gateway,
    allow,
    error_json,
    header,
    metadata,
    running_gateway,
    start_authz,
    start_ingest,
)
from tests.patience import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = header("content-type", "application/json")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


def decides(gateway: Gateway, response: pb.CheckResponse) -> None:
    async def answer(_: pb.CheckRequest) -> pb.CheckResponse:
        return response

    gateway.decisions.answer = answer


def provider_says(gateway: Gateway, status: int, **headers: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        body = '{"error":{"message":"planted"}}'
        return web.Response(
            status=status, text=body, content_type="application/json", headers=headers
        )

    gateway.provider.answer = answer


def code_of(body: bytes) -> str:
    """The code of a body that OpenAI's and Anthropic's clients read as an error."""
    document = json.loads(body)
    assert (set(document), document["type"]) == ({"type", "error"}, "error")
    error = document["error"]
    assert set(error) == {"message", "type", "code", "param"}
    return str(error["code"])


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 415, 429])
async def test_a_denial_reaches_the_client_as_written(gateway: Gateway, status: int) -> None:
    gateway.reset()
    body = error_json("some_reason", "Écrit par la décision.")
    denied = pb.DeniedHttpResponse(
        status=pb.HttpStatus(code=status), headers=[JSON, header("retry-after", "9")], body=body
    )
    decides(gateway, pb.CheckResponse(status=pb.Status(code=7), denied_response=denied))
    answer_status, headers, answer = await gateway.post()
    assert (answer_status, answer) == (status, body.encode())
    assert (headers["content-type"], headers["retry-after"]) == ("application/json", "9")
    assert not gateway.provider.requests


async def test_an_outage_reaches_the_client_as_written(gateway: Gateway) -> None:
    gateway.reset()
    body = error_json("unavailable")
    outage = pb.DeniedHttpResponse(
        status=pb.HttpStatus(code=503), headers=[JSON, header("retry-after", "1")], body=body
    )
    decides(gateway, pb.CheckResponse(status=pb.Status(code=14), error_response=outage))
    status, headers, answer = await gateway.post()
    assert (status, answer, headers["retry-after"]) == (503, body.encode(), "1")
    assert not gateway.provider.requests


async def test_a_broken_decision_is_a_503(gateway: Gateway) -> None:
    gateway.reset()

    async def broken(_: pb.CheckRequest) -> pb.CheckResponse:
        raise RuntimeError("planted")

    gateway.decisions.answer = broken
    status, headers, body = await gateway.post()
    assert (status, code_of(body), headers["retry-after"]) == (503, "unavailable", "1")
    assert b"planted" not in body


async def test_a_decision_later_than_two_seconds_is_a_503() -> None:
    async def late(_: pb.CheckRequest) -> pb.CheckResponse:
        await asyncio.sleep(CHECK_TIMEOUT_S + 0.5)
        return allow("late")

    async with running_gateway(check_timeout_s=CHECK_TIMEOUT_S) as gateway:
        gateway.decisions.answer = late
        status, _, body = await gateway.post()
        assert (status, code_of(body)) == (503, "unavailable")
        assert not gateway.provider.requests


async def test_no_decision_service_is_a_503_and_it_recovers(gateway: Gateway) -> None:
    gateway.reset()
    await gateway.authz_server.stop(0)
    status, _, body = await gateway.post()
    assert (status, code_of(body)) == (503, "unavailable")
    assert not gateway.provider.requests
    gateway.authz_server = await start_authz(gateway.decisions, f"unix:{gateway.folder}/authz.sock")

    async def is_served() -> bool:
        return (await gateway.post())[0] == 200

    await until(is_served, "requests are served again")
    assert await is_served()


async def test_a_meter_that_is_away_costs_the_stream_but_not_the_file(gateway: Gateway) -> None:
    """The entry written meanwhile may be gone from the stream: the file is there for it."""
    await gateway.ingest_server.stop(None)
    lost = gateway.reset()
    assert (await gateway.post())[0] == 200
    assert (await gateway.logged_of(lost))["code"] == 200
    gateway.ingest_server = await start_ingest(
        gateway.entries, f"unix:{gateway.folder}/ingest.sock"
    )

    async def is_told() -> bool:
        seen = len(gateway.entries.seen)
        gateway.reset()
        assert (await gateway.post())[0] == 200
        await asyncio.sleep(0.1)
        return len(gateway.entries.seen) > seen

    # Envoy pauses between its tries to connect, and forgets what it has to tell meanwhile.
    await until(is_told, "the stream tells again")


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_our_trouble_with_the_provider_is_not_the_clients(
    gateway: Gateway, status: int
) -> None:
    hold_id = gateway.reset()
    provider_says(gateway, status, **{"www-authenticate": "Bearer"})
    answer_status, headers, body = await gateway.post()
    assert (answer_status, code_of(body)) == (503, "provider_unavailable")
    assert headers["content-length"] == str(len(body))
    assert "www-authenticate" not in headers
    entry = await gateway.entries.of(hold_id)
    assert metadata(entry)["tollkeeper.upstream"] == {"status": status}
    assert (await gateway.logged_of(hold_id))["upstream_status"] == status


async def test_what_the_provider_says_of_a_prompt_passes(gateway: Gateway) -> None:
    said = b'{"error":{"code":403,"metadata":{"reasons":["violence"],"flagged_input":"..."}}}'
    gateway.reset()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403, body=said, content_type="application/json")

    gateway.provider.answer = answer
    status, _, body = await gateway.post()
    assert (status, body) == (403, said)


@pytest.mark.parametrize(("count", "length"), [(500, 20), (1, 90_000)])
async def test_an_answer_may_have_many_and_large_headers(
    gateway: Gateway, count: int, length: int
) -> None:
    gateway.reset()

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {f"x-more-{number}": "v" * length for number in range(count)}
        return web.json_response({"id": "gen-1"}, headers=headers)

    gateway.provider.answer = answer
    # Client libraries have limits of their own.
    where = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=2**22)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.count(b"\r\nx-more-") == count
    assert body


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_other_answers_of_the_provider_pass(gateway: Gateway, status: int) -> None:
    gateway.reset()
    provider_says(gateway, status)
    answer_status, _, body = await gateway.post()
    assert (answer_status, body) == (status, b'{"error":{"message":"planted"}}')
    assert len(gateway.provider.requests) == 1


async def test_a_provider_that_hangs_up_is_not_asked_twice(gateway: Gateway) -> None:
    hold_id = gateway.reset()

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    gateway.provider.answer = hang_up
    status, _, body = await gateway.post()
    assert (status, code_of(body)) == (503, "provider_unavailable")
    assert len(gateway.provider.requests) == 1
    flags = (await gateway.entries.of(hold_id)).common_properties.response_flags
    assert flags.upstream_connection_termination


async def test_a_provider_that_closes_a_reused_connection_is_not_asked_twice(
    gateway: Gateway,
) -> None:
    """The request may have been read: only one of which no byte was sent is sent again."""
    gateway.reset()
    assert (await gateway.post())[0] == 200
    connections = []

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        connections.append(request.transport)
        request.transport.abort()
        return web.Response()

    hold_id = gateway.reset()
    gateway.provider.answer = hang_up
    status, _, body = await gateway.post()
    assert (status, code_of(body), len(connections)) == (503, "provider_unavailable", 1)
    line = await gateway.logged_of(hold_id)
    assert (line["flags"], line["upstream_attempts"], line["first_upstream_byte_ms"]) == (
        "UC",
        1,
        None,
    )


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 403, "invalid_request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        ("nonsense\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nhost: a\r\nb: " + "x" * 70_000 + "\r\n\r\n", 431, "invalid_request"),
    ],
)
async def test_bad_http_is_answered_in_the_same_shape(
    gateway: Gateway, request_text: str, status: int, code: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request_text.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert code_of(await reader.read(500)) == code
    writer.close()


async def test_reply_headers_are_clean(gateway: Gateway) -> None:
    gateway.reset()
    planted = {
        "set-cookie": "a=b",
        "server": "cloudflare",
        "x-envoy-upstream-service-time": "1",
        "cf-ray": "x",
        "alt-svc": "h3",
        "x-generation-id": "gen-1",
    }
    provider_says(gateway, 200, **planted)
    _, headers, _ = await gateway.post()
    names = {name.lower() for name in headers}
    assert names == {
        "content-type",
        "content-length",
        "date",
        "server",
        "x-generation-id",
        "x-request-id",
    }
    assert headers["server"] == "tollkeeper"
    assert headers["x-generation-id"] == "gen-1"


async def test_the_file_log_keeps_refusals_and_no_secret(gateway: Gateway) -> None:
    gateway.reset()
    denied = pb.DeniedHttpResponse(status=pb.HttpStatus(code=429), headers=[JSON], body="{}")
    decides(gateway, pb.CheckResponse(status=pb.Status(code=7), denied_response=denied))
    await gateway.post(
        headers={"authorization": "Bearer tk-planted"}, path="/v1/embeddings?k=tk-planted"
    )
    hold_id = gateway.reset()
    await gateway.post()
    await gateway.logged_of(hold_id)
    assert (429, "ext_authz_denied") in {(x["code"], x["details"]) for x in gateway.logged()}
    text = (gateway.folder / "access.jsonl").read_text()
    assert "tk-planted" not in text
    assert PROVIDER_KEY not in text
