"""The requests that reach a provider: allowed paths, bodies edited to the byte, no secret."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yarl

from authz.decide import HARMLESS_PARAMETERS
from authz.endpoints import table
from authz.endpoints.body import Body, parse
from authz.endpoints.edits import edit_body
from authz.policy import ACCOUNT_HEADER
from authz.protos import ext_authz_pb2 as pb
from authz.request import HEADERS_USED
from authz.transports import wire
from tests.e2e.envoy.envoy_harness import PROVIDER_KEY, Gateway, allow, metadata, running_gateway
from tests.splices import apply_edits

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
PREFIXES = ("/v1/", "/api/v1/llm/", "/api/v1/")
ENDPOINTS = (
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "rerank",
    "images",
    "images/generations",
    "audio/speech",
    "audio/transcriptions",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


async def ask(gateway: Gateway, method: str, path: str) -> tuple[int, bytes]:
    """Send a path exactly as written."""
    url = yarl.URL(gateway.url + path, encoded=True)
    body = b"{}" if method in ("POST", "PUT", "QUERY") else None
    async with gateway.client.request(method, url, data=body) as reply:
        return reply.status, await reply.read()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_inference_paths_reach_the_provider(
    gateway: Gateway, prefix: str, endpoint: str
) -> None:
    gateway.reset()
    status, _, _ = await gateway.post(path=prefix + endpoint)
    (received,) = gateway.provider.requests
    # OpenRouter has one path for pictures, in OpenAI's form and in its own.
    path = f"/api/v1/{endpoint.removesuffix('/generations')}"
    assert (status, received.method, received.path) == (200, "POST", path)


@pytest.mark.parametrize("query", ["", "?beta=true", "?api-version=1&beta&beta=2", "?beta="])
async def test_what_the_decision_lets_pass_of_a_query_stays_here(
    gateway: Gateway, query: str
) -> None:
    response = allow(gateway.reset())
    response.MergeFromString(wire.without_parameters(HARMLESS_PARAMETERS))

    async def decided(_: pb.CheckRequest) -> pb.CheckResponse:
        return response

    gateway.decisions.answer = decided
    for path in ("chat/completions", "messages"):
        status, _ = await ask(gateway, "POST", f"/api/v1/{path}{query}")
        assert status == 200
    assert [one.path for one in gateway.provider.requests] == [
        "/api/v1/chat/completions",
        "/api/v1/messages",
    ]
    shown = gateway.decisions.checks[0].attributes.request.http.path
    assert shown == f"/api/v1/chat/completions{query}"


async def test_the_router_has_every_path_of_the_decision() -> None:
    assert set(table.ENDPOINTS) <= {prefix + path for prefix in PREFIXES for path in ENDPOINTS}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1x/models"),
        ("GET", "/V1/models"),
        ("GET", "/chats"),
        ("GET", "/v1/models/..%2F..%2Fhealthz"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/docsx"),
        ("GET", "/api/v1"),
        ("GET", "/"),
    ],
)
async def test_everything_else_is_not_found(gateway: Gateway, method: str, path: str) -> None:
    gateway.reset()
    status, body = await ask(gateway, method, path)
    assert status == 404
    assert b'"code": "route_not_found"' in body
    assert not gateway.provider.requests
    assert not gateway.meter_api.requests
    assert not gateway.decisions.checks


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/openai/gpt-4o:free", "/v1/models/openai/gpt-4o:free"),
        ("/v1/models/openai%2Fgpt-4o", "/v1/models/openai/gpt-4o"),
        ("/api/v1/llm/models", "/v1/models"),
        ("/api/v1/models", "/api/v1/models"),
        ("/api/v1/models/openai/gpt-4o", "/api/v1/models/openai/gpt-4o"),
        ("/v1/key", "/api/v1/key"),
        ("/api/v1/llm/credits", "/api/v1/credits"),
        ("/v1/generation?id=gen-1", "/api/v1/generation?id=gen-1"),
        ("/api/v1/generation?id=gen-1", "/api/v1/generation?id=gen-1"),
        ("/api/v1/credits?cursor=1", "/api/v1/credits?cursor=1"),
        ("/openapi.json", "/openapi.json"),
        ("/.well-known/jwks.json", "/.well-known/jwks.json"),
        ("/.well-known/openid-configuration", "/.well-known/openid-configuration"),
        ("/docs", "/docs"),
        ("/docs/swagger-ui.css", "/docs/swagger-ui.css"),
    ],
)
async def test_the_meter_api_is_reached_without_a_check(
    gateway: Gateway, path: str, seen: str
) -> None:
    gateway.reset()
    status, _ = await ask(gateway, "GET", path)
    assert status == 200
    assert [r.path for r in gateway.meter_api.requests] == [seen]
    assert not gateway.decisions.checks
    assert not gateway.provider.requests


@pytest.mark.parametrize(
    ("method", "path", "seen"),
    [
        ("GET", "/v1/chat/completions", "/v1/chat/completions"),
        ("PUT", "/api/v1/llm/chat/completions", "/api/v1/llm/chat/completions"),
        ("QUERY", "/v1/chat/completions", "/v1/chat/completions"),
        ("OPTIONS", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions/"),
        ("POST", "/v1/chat/completionsx", "/v1/chat/completionsx"),
        ("POST", "/v1/v1/chat/completions?a=b", "/v1/v1/chat/completions?a=b"),
        ("POST", "/v1/keys", "/v1/keys"),
        ("GET", "/api/v1/llm/keys", "/api/v1/llm/keys"),
        ("POST", "/api/v1/llm/models", "/api/v1/llm/models"),
        ("POST", "/v1/credits", "/v1/credits"),
        ("POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("POST", "/api/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("GET", "/v1", "/v1"),
        ("GET", "/api/v1/llm", "/api/v1/llm"),
        ("GET", "/models", "/models"),
        ("POST", "/chat/completions", "/chat/completions"),
        ("POST", "/api/messages", "/api/messages"),
        (
            "POST",
            "/openai/deployments/gpt-4o/chat/completions",
            "/openai/deployments/gpt-4o/chat/completions",
        ),
    ],
)
async def test_the_meter_answers_for_all_near_the_paths_of_providers(
    gateway: Gateway, method: str, path: str, seen: str
) -> None:
    gateway.reset()
    await ask(gateway, method, path)
    assert [(one.method, one.path) for one in gateway.meter_api.requests] == [(method, seen)]
    assert not gateway.decisions.checks
    assert not gateway.provider.requests


async def test_a_body_at_a_wrong_path_is_bounded(gateway: Gateway) -> None:
    gateway.reset()
    status, _, body = await gateway.post(b"x" * (MIB + 1), "/chat/completions")
    assert (status, b'"code": "request_too_large"' in body) == (413, True)
    assert not gateway.meter_api.requests


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/key", "/v1/credits", "/openapi.json"])
async def test_head_is_asked_where_get_is(gateway: Gateway, path: str) -> None:
    gateway.reset()
    for method in ("GET", "HEAD"):
        await ask(gateway, method, path)
    asked, again = gateway.meter_api.requests
    assert (again.method, again.path) == ("HEAD", asked.path)


async def test_pages_of_no_origin_may_call_where_none_is_named(gateway: Gateway) -> None:
    gateway.reset()
    headers = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
    url = gateway.url + "/v1/chat/completions"
    async with gateway.client.options(url, headers=headers) as reply:
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


async def test_the_meter_hears_of_inference_only(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    await ask(gateway, "GET", "/api/v1/credits")
    await ask(gateway, "GET", "/nowhere")
    await gateway.post()
    await gateway.entries.of(hold_id)
    await gateway.logged_of(hold_id)
    routes = {entry.common_properties.route_name for entry in gateway.entries.seen}
    assert not [route for route in routes if not route.startswith("inference")]
    assert {"meter_api_reads", "not_found"} <= {line.get("route") for line in gateway.logged()}


async def test_the_operators_own_headers_reach_the_meter_api(gateway: Gateway) -> None:
    gateway.reset()
    headers = {"authorization": "Bearer operator", "idempotency-key": "k1"}
    await gateway.post(path="/api/v1/admin/users", headers=headers)
    (received,) = gateway.meter_api.requests
    assert received.header("authorization") == "Bearer operator"
    assert received.header("idempotency-key") == "k1"


SPLICES = [
    (b'{"a":1}', [(1, 0, '"max_tokens":5,')], b'{"max_tokens":5,"a":1}'),
    (b'{"a":null}', [(5, 4, "77")], b'{"a":77}'),
    (b'{"a":1}', [(0, 7, "{}")], b"{}"),
    (b'{"a":1}', [(7, 0, "\n")], b'{"a":1}\n'),
    (b"", [(0, 0, "{}")], b"{}"),
    (
        '{"é€😀":1,"m":null}'.encode(),
        [(1, 0, '"x":"ü",'), (len('{"é€😀":1,"m":'.encode()), 4, "9")],
        '{"x":"ü","é€😀":1,"m":9}'.encode(),
    ),
    (b'{"n":12345678901234567890,"b":"\x00\xff"}', [(1, 0, " ")], None),
]


@pytest.mark.parametrize(("body", "edits", "expected"), SPLICES)
async def test_edits_change_exactly_their_bytes(
    gateway: Gateway, body: bytes, edits: list[tuple[int, int, str]], expected: bytes | None
) -> None:
    gateway.edit_next(gateway.reset(), edits)
    status, _, _ = await gateway.post(body)
    (received,) = gateway.provider.requests
    assert status == 200
    assert received.body == (body[:1] + b" " + body[1:] if expected is None else expected)
    assert received.header("content-length") == str(len(received.body))


@pytest.mark.parametrize(
    "raw",
    [
        '{"größe 🙂":"ä","max_tokens":null}',
        '{"größe 🙂":"ä","trace":{"ü":"ö"},"max_completion_tokens":null}',
        '{"max_tokens": null, "é":"€", "trace" : null }',
        '{"é":"€"}',
    ],
)
async def test_limit_and_tag_are_written_as_the_decision_means_it(
    gateway: Gateway, raw: str
) -> None:
    body = parse(raw.encode())
    assert isinstance(body, Body)
    edits = edit_body(body, 77, "0123456789abcdef" * 2)
    gateway.edit_next(gateway.reset(), [(one.offset, one.remove, one.insert) for one in edits])
    status, _, _ = await gateway.post(raw.encode())
    assert status == 200
    assert gateway.provider.requests[0].body == apply_edits(raw.encode(), edits)


async def test_a_body_of_20_mib_is_checked_whole_and_edited(gateway: Gateway) -> None:
    body = b'{"image":"' + b"a" * 20 * MIB + b'","max_tokens":null}'
    at = body.rindex(b"null")
    gateway.edit_next(gateway.reset(), [(1, 0, '"n":1,'), (at, 4, "77")])
    status, _, _ = await gateway.post(body)
    assert status == 200
    assert gateway.decisions.checks[0].attributes.request.http.raw_body == body
    assert gateway.provider.requests[0].body == b'{"n":1,' + body[1:at] + b"77}"


@pytest.mark.parametrize("edits", [[(5, 100, "x")], [(3, 2, "x"), (4, 1, "y")]])
async def test_an_edit_that_cannot_be_made_is_a_503(
    gateway: Gateway, edits: list[tuple[int, int, str]]
) -> None:
    hold_id = gateway.reset()
    gateway.edit_next(hold_id, edits)
    status, _, body = await gateway.post(b'{"a":1}')
    assert (status, b'"code": "unavailable"' in body) == (503, True)
    assert not gateway.provider.requests
    entry = await gateway.entries.of(hold_id)
    assert entry.response.response_code_details == "lua_response"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('1:0:6:"n":1,;', b'{"n":1,"a":1}'),
        ("1:0:1: ;5:1:2:77;", b'{ "a":77}'),
        ("1:0:3:;:;;", b'{;:;"a":1}'),
        ("0:7:0:;", b""),
        ("1:0:1: ", None),
        ("1:0:2: ;", None),
        ("1:0:0: ;", None),
        ("1:0:1: ;5", None),
        ("1:0:z: ;", None),
        ("x1:0:1: ;", None),
        ("9:0:1: ;", None),
        ("-1:0:1: ;", None),
        ("1:0:99999999999999999999: ;", None),
        ([{"offset": 1, "remove": 0, "insert": " "}], None),
    ],
)
async def test_edits_given_as_a_text_are_made_or_refused(
    gateway: Gateway, text: str | Sequence[Mapping[str, float | str]], expected: bytes | None
) -> None:
    response = allow(gateway.reset())
    response.dynamic_metadata.update({"edits": text})

    async def edited(_: pb.CheckRequest) -> pb.CheckResponse:
        return response

    gateway.decisions.answer = edited
    status, _, _ = await gateway.post(b'{"a":1}')
    assert status == (503 if expected is None else 200)
    assert [received.body for received in gateway.provider.requests] == (
        [] if expected is None else [expected]
    )


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_24_mib_is_a_413(gateway: Gateway, is_chunked: bool) -> None:
    gateway.reset()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(25):
            yield b"x" * MIB

    body = pieces() if is_chunked else b"x" * 25 * MIB
    status, _, answer = await gateway.post(body)  # type: ignore[arg-type]
    assert (status, b'"code": "request_too_large"' in answer) == (413, True)
    assert not gateway.decisions.checks
    assert not gateway.provider.requests


REMOVED = {
    "accept-encoding": "gzip",
    "anthropic-beta": "context-1m",
    "cookie": "session=1",
    "forwarded": "for=1.2.3.4",
    "openai-organization": "org-1",
    "openai-project": "proj-1",
    "origin": "https://example.org",
    "proxy-authorization": "Basic x",
    "referer": "https://example.org",
    "via": "1.1 proxy",
    "x-api-key": "tk-client-key",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-retry-on": "5xx",
    "x-forwarded-for": "1.2.3.4",
    "x-forwarded-host": "evil.example",
    "x-openrouter-provider": "cheap",
    "x-real-ip": "1.2.3.4",
    "x-tollkeeper-hold": "forged",
}


async def test_client_headers_stay_here_and_the_key_is_ours(gateway: Gateway) -> None:
    gateway.reset()
    sent = {**REMOVED, "authorization": "Bearer tk-client-key", "x-title": "My app"}
    status, _, _ = await gateway.post(headers={**sent, "x-request-id": "chosen-by-client"})
    (received,) = gateway.provider.requests
    names = {name.lower() for name, _ in received.headers}
    assert status == 200
    assert not names & set(REMOVED)
    assert not [n for n in names if n.startswith(("x-envoy-", "x-forwarded-"))]
    assert received.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert received.header("x-title") == "My app"
    assert "tk-client-key" not in str(received.headers)
    assert received.header("x-request-id") != "chosen-by-client"


async def test_repeated_credentials_are_visible_to_the_decision(gateway: Gateway) -> None:
    """Envoy joins Authorization with a comma before any filter; other names stay apart."""
    gateway.reset()
    url = gateway.url + "/v1/chat/completions"
    pairs = [(name, f"k{i}") for name in ("authorization", "x-api-key") for i in (1, 2)]
    async with gateway.client.post(url, data=b"{}", headers=pairs) as reply:
        await reply.read()
    http = gateway.decisions.checks[0].attributes.request.http
    shown = [(h.key, h.raw_value) for h in http.header_map.headers]
    assert [v for k, v in shown if k == "authorization"] == [b"k1,k2"]
    assert [v for k, v in shown if k == "x-api-key"] == [b"k1", b"k2"]
    assert not http.headers
    assert gateway.provider.requests[0].header("authorization") == f"Bearer {PROVIDER_KEY}"


SENT_ANYWAY = {"content-length", "content-type", "x-request-id"}


async def test_the_decision_is_shown_the_headers_it_reads_and_no_others(gateway: Gateway) -> None:
    gateway.reset()
    sent = dict.fromkeys(HEADERS_USED - SENT_ANYWAY, "sent")
    await gateway.post(headers={**REMOVED, **sent})
    http = gateway.decisions.checks[0].attributes.request.http
    shown = {h.key for h in http.header_map.headers}
    # Envoy says whether the body is all there, not the client; and only listeners that callers of
    # our own alone can reach show who they speak for.
    assert shown == HEADERS_USED - {ACCOUNT_HEADER}
    assert (http.method, http.path) == ("POST", "/v1/chat/completions")


async def test_an_old_client_is_told_what_to_send(gateway: Gateway) -> None:
    gateway.reset()
    where = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
    reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 426 ")
    assert b"Send the request with HTTP/1.1 or HTTP/2." in reply


# What aiohttp sends by itself: host, accept, accept-encoding, user-agent, and two of the body.
USUAL_HEADERS = 6
MOST_HEADERS = 100


async def test_as_many_headers_as_the_limit_says_are_served(gateway: Gateway) -> None:
    gateway.reset()
    many = {f"x-{number}": "1" for number in range(MOST_HEADERS - USUAL_HEADERS)}
    # The credential makes no difference: the provider's key may replace it or be one more.
    assert (await gateway.post(headers=many))[0] == 200
    assert len(gateway.provider.requests) == 1


@pytest.mark.parametrize("more", [22, 25, 28, 29, 200])
async def test_more_headers_are_refused_and_reach_no_provider(gateway: Gateway, more: int) -> None:
    gateway.reset()
    many = {f"x-{number}": "1" for number in range(MOST_HEADERS - USUAL_HEADERS + more)}
    status, _, body = await gateway.post(headers=many)
    assert (status, b'"code": "invalid_request"' in body) == (431, True)
    assert b"headers" in body
    assert not gateway.provider.requests


async def test_headers_of_nearly_the_largest_size_are_served_or_refused(gateway: Gateway) -> None:
    """Never a 500, of which there would be one where our own additions found no room."""
    full = {f"x-{number}": "1" * 1_000 for number in range(60)}
    statuses = set()
    for size in range(400, 900, 7):
        gateway.reset()
        statuses.add((await gateway.post(headers={**full, "x-last": "1" * size}))[0])
    assert statuses == {200, 431}


async def test_a_header_with_an_underscore_goes_no_further(gateway: Gateway) -> None:
    gateway.reset()
    status, _, _ = await gateway.post(headers={"session_id": "1", "x_api_key": "k"})
    assert status == 200
    http = gateway.decisions.checks[0].attributes.request.http
    assert not [h.key for h in http.header_map.headers if "_" in h.key or h.key == "x-api-key"]
    assert not [name for name in gateway.provider.requests[0].headers if "_" in name]


async def test_the_log_names_what_the_decision_said(gateway: Gateway) -> None:
    hold_id = gateway.reset()
    await gateway.post()
    facts = metadata(await gateway.entries.of(hold_id))["envoy.filters.http.ext_authz"]
    duration = facts.pop("ext_authz_duration")
    assert duration >= 0
    assert facts == {
        "hold_id": hold_id,
        "account_id": "acme",
        "credential_id": "abcdefghij234567",
        "model": "openai/gpt-4o",
        "endpoint": "chat_completions",
    }
