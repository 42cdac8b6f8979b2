"""Two checks: the first sees the beginning of a body, the second all of a longer one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from authz.decision import Reason, deny
from authz.policy import PARTIAL_BODY
from authz.protos import ext_authz_pb2 as pb
from authz.request import PARTIAL_BODY_HEADER
from authz.transports import wire
from tests.e2e.envoy.authz_process import EXT_AUTHZ, WHOLE_BODY_CHECK, manager_of
from tests.e2e.envoy.envoy_harness import NAMESPACE, Document, Gateway, metadata, running_gateway
from tests.patience import WAIT_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST_CHECK_BYTES = 65_536
# What Envoy reads in one go: pieces of it end exactly where the first check does.
PIECE = 16_384
PATH = "/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]
        await asyncio.sleep(0.005)


async def refuse(_: pb.CheckRequest) -> pb.CheckResponse:
    """Refuse, as authz does without a credential."""
    return pb.CheckResponse.FromString(wire.from_decision(deny(Reason.MISSING_API_KEY)))


def body_of(size: int) -> bytes:
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


@pytest.mark.parametrize("size", [8, 1_000, FIRST_CHECK_BYTES - 1])
async def test_a_body_that_fits_is_decided_by_one_check(gateway: Gateway, size: int) -> None:
    gateway.reset()
    status, _, _ = await gateway.post(body_of(size))
    (check,) = gateway.decisions.checks
    assert (status, check.attributes.request.http.raw_body) == (200, body_of(size))
    assert check.attributes.context_extensions[PARTIAL_BODY] == str(FIRST_CHECK_BYTES)
    assert not gateway.decisions.first_checks


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [FIRST_CHECK_BYTES, FIRST_CHECK_BYTES + 1, 300_000])
async def test_a_longer_body_is_decided_by_the_second_check(
    gateway: Gateway, size: int, is_chunked: bool
) -> None:
    hold_id = gateway.reset()
    gateway.edit_next(hold_id, [(1, 0, '"n":1,')])
    body = body_of(size)
    status, _, _ = await gateway.post(pieces(body) if is_chunked else body)  # type: ignore[arg-type]
    (first,), (second,) = gateway.decisions.first_checks, gateway.decisions.checks
    assert status == 200
    assert first.attributes.request.http.raw_body == body[:FIRST_CHECK_BYTES]
    assert second.attributes.request.http.raw_body == body
    assert PARTIAL_BODY not in second.attributes.context_extensions
    assert gateway.provider.requests[0].body == b'{"n":1,' + body[1:]
    facts = metadata(await gateway.entries.of(hold_id))[NAMESPACE]
    assert (facts["account_id"], facts["needs_whole_body"]) == ("acme", True)


async def test_a_refusal_does_not_wait_for_the_rest_of_a_body(gateway: Gateway) -> None:
    gateway.reset()
    gateway.decisions.first_answer = refuse
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 25000000\r\n\r\n".encode())
    writer.write(b"x" * 100_000)
    async with asyncio.timeout(WAIT_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    assert not gateway.decisions.checks


@pytest.mark.parametrize("said", ["true", "false"])
async def test_a_client_cannot_say_which_check_it_is(gateway: Gateway, said: str) -> None:
    gateway.reset()
    forged = {PARTIAL_BODY_HEADER: said, "needs-whole-body": said, PARTIAL_BODY: "0"}
    for size, is_partial in ((1_000, b"false"), (FIRST_CHECK_BYTES + 1, b"true")):
        await gateway.post(body_of(size), headers=forged)
        check = [*gateway.decisions.checks[:1], *gateway.decisions.first_checks][-1]
        headers = check.attributes.request.http.header_map.headers
        assert [h.raw_value for h in headers if h.key == PARTIAL_BODY_HEADER] == [is_partial]
        assert check.attributes.context_extensions == {PARTIAL_BODY: str(FIRST_CHECK_BYTES)}
    assert len(gateway.provider.requests) == 2


def without_the_second_check(document: Document) -> None:
    filters = manager_of(document["static_resources"]["listeners"][0])["http_filters"]
    filters[:] = [one for one in filters if one["name"] != WHOLE_BODY_CHECK]


async def test_without_the_second_check_no_large_body_goes_on() -> None:
    async with running_gateway(change=without_the_second_check) as gateway:
        gateway.reset()
        status, _, answer = await gateway.post(body_of(FIRST_CHECK_BYTES))
        assert (status, b'"code": "unavailable"' in answer) == (503, True)
        assert not gateway.provider.requests
        assert (await gateway.post(body_of(1_000)))[0] == 200


def with_a_policy_on_the_route(document: Document) -> None:
    host = manager_of(document["static_resources"]["listeners"][0])["route_config"]["virtual_hosts"]
    route = next(one for one in host[0]["routes"] if one["name"] == "inference")
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    settings = {"context_extensions": {"scope": "inference"}}
    route["typed_per_filter_config"] = {EXT_AUTHZ: {"@type": kind, "check_settings": settings}}


async def test_a_policy_of_a_route_leaves_the_first_check_as_it_is() -> None:
    async with running_gateway(change=with_a_policy_on_the_route) as gateway:
        gateway.reset()
        assert (await gateway.post(body_of(FIRST_CHECK_BYTES)))[0] == 200
        (first,) = gateway.decisions.first_checks
        assert first.attributes.context_extensions == {
            PARTIAL_BODY: str(FIRST_CHECK_BYTES),
            "scope": "inference",
        }


CONNECTIONS = 200
WITHHELD_BYTES = 24 * 2**20


async def withhold(gateway: Gateway) -> "asyncio.StreamWriter":
    """Send all of a large body but its last byte, as far as Envoy takes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: {WITHHELD_BYTES}\r\n\r\n"
    writer.write(head.encode())
    with contextlib.suppress(ConnectionError):
        for _ in range(WITHHELD_BYTES // 2**20 - 1):
            writer.write(b"x" * 2**20)
            await writer.drain()
        writer.write(b"x" * (2**20 - 1))
        await writer.drain()
    return writer


async def test_bodies_that_nobody_finishes_take_nothing_from_others() -> None:
    """Connections without a credential withhold their last byte; another caller is served."""
    async with running_gateway() as gateway:
        gateway.reset()
        gateway.decisions.first_answer = refuse
        withheld = [asyncio.ensure_future(withhold(gateway)) for _ in range(CONNECTIONS)]
        statuses = []
        while not all(one.done() for one in withheld):
            statuses.append((await gateway.post())[0])
        writers = [await one for one in withheld]
        statuses += [(await gateway.post())[0] for _ in range(50)]
        for writer in writers:
            writer.close()
        assert len(gateway.decisions.first_checks) == CONNECTIONS
        assert set(statuses) == {200}
