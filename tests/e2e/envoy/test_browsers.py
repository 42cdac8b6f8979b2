"""Pages in browsers: preflights are answered for the origins that an installation names."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from authz.protos import ext_authz_pb2 as pb
from tests.e2e.envoy.envoy_harness import Gateway, error_json, header, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://app.example.com"
OTHERS = ("https://app.example.com.evil.org", "http://app.example.com", "null")
ALLOWED_ORIGIN = "access-control-allow-origin"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway(cors_origins=f"http://localhost:3000, {ORIGIN}") as running:
        yield running


async def preflight(gateway: Gateway, path: str, origin: str) -> tuple[int, dict[str, str]]:
    """Ask as a browser does before a request with a key."""
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    async with gateway.client.options(gateway.url + path, headers=headers) as reply:
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/messages", "/api/v1/credits"])
async def test_a_preflight_of_a_named_origin_is_answered_unchecked(
    gateway: Gateway, path: str
) -> None:
    gateway.reset()
    for origin in (ORIGIN, "http://localhost:3000"):
        status, headers = await preflight(gateway, path, origin)
        assert (status, headers[ALLOWED_ORIGIN]) == (200, origin)
        assert "POST" in headers["access-control-allow-methods"]
        assert "authorization" in headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in headers
    assert not gateway.decisions.checks
    assert not gateway.meter_api.requests


@pytest.mark.parametrize("origin", OTHERS)
async def test_pages_of_other_origins_are_told_nothing(gateway: Gateway, origin: str) -> None:
    gateway.reset()
    _, headers = await preflight(gateway, "/v1/chat/completions", origin)
    assert ALLOWED_ORIGIN not in headers
    _, headers, _ = await gateway.post(headers={"origin": origin})
    assert ALLOWED_ORIGIN not in headers


async def test_a_page_of_a_named_origin_may_read_replies_and_refusals(gateway: Gateway) -> None:
    gateway.reset()

    async def said(_: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={ALLOWED_ORIGIN: "*"})

    gateway.provider.answer = said
    status, headers, _ = await gateway.post(headers={"origin": ORIGIN})
    assert (status, headers.getall(ALLOWED_ORIGIN)) == (200, [ORIGIN])
    assert gateway.provider.requests[0].header("origin") is None

    async def refused(_: pb.CheckRequest) -> pb.CheckResponse:
        denied = pb.DeniedHttpResponse(
            status=pb.HttpStatus(code=402),
            headers=[header("content-type", "application/json")],
            body=error_json("insufficient_credits"),
        )
        return pb.CheckResponse(status=pb.Status(code=7), denied_response=denied)

    gateway.decisions.answer = refused
    status, headers, _ = await gateway.post(headers={"origin": ORIGIN})
    assert (status, headers[ALLOWED_ORIGIN]) == (402, ORIGIN)
