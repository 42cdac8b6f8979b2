"""The meter's API: so many requests for each source, and for each credential."""

import json
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.envoy.authz_process import manager_of
from tests.e2e.envoy.envoy_harness import Document, Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

OF_A_SOURCE = 12
OF_A_CREDENTIAL = 4
RATES = "tollkeeper.api_rates"


def filled_once(document: Document) -> None:
    """Make the buckets small, and fill them once an hour: no test is that slow."""
    filters = manager_of(document["static_resources"]["listeners"][0])["http_filters"]
    (rates,) = [one["typed_config"] for one in filters if one["name"] == RATES]
    for descriptor in rates["descriptors"]:
        (entry,) = descriptor["entries"]
        most = OF_A_CREDENTIAL if entry["key"] == "credential" else OF_A_SOURCE
        bucket = {"max_tokens": most, "tokens_per_fill": 1, "fill_interval": "3600s"}
        descriptor["token_bucket"] = bucket


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway(change=filled_once) as running:
        running.reset()
        yield running


async def ask(
    gateway: Gateway,
    credentials: Sequence[str] = (),
    path: str = "/api/v1/credits",
    source: str = "127.0.0.1",
    header: str = "authorization",
) -> list[tuple[int, str, bytes]]:
    """Send a request with each credential in turn from one address of this machine."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    answers = []
    async with aiohttp.ClientSession(connector=connector) as client:
        for credential in credentials:
            async with client.get(gateway.url + path, headers={header: credential}) as reply:
                kind = reply.headers.get("content-type", "")
                if reply.status == 429:
                    assert reply.headers["retry-after"] == "1"
                answers.append((reply.status, kind, await reply.read()))
    return answers


def statuses(answers: list[tuple[int, str, bytes]]) -> list[int]:
    return [status for status, _, _ in answers]


def key(name: str) -> str:
    return f"Bearer tk-aaaaaaaaaaaaaaaa-{name.rjust(49, 'x')}"


async def test_a_credential_has_a_rate_wherever_it_comes_from(gateway: Gateway) -> None:
    of_one = [key("one")] * OF_A_CREDENTIAL
    assert statuses(await ask(gateway, of_one)) == [200] * OF_A_CREDENTIAL
    ((status, kind, body),) = await ask(gateway, [key("one")], source="127.0.0.2")
    assert (status, kind) == (429, "application/problem+json")
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("rate_limit_exceeded", 429)
    assert sorted(problem) == ["code", "detail", "errors", "status", "title", "type"]
    assert statuses(await ask(gateway, [key("two")])) == [200]
    # The same key in the other header is the same.
    bare = key("one").removeprefix("Bearer ")
    assert statuses(await ask(gateway, [bare], source="127.0.0.2", header="x-api-key")) == [429]


async def test_a_source_has_a_rate_whatever_it_sends(gateway: Gateway) -> None:
    made_up = [key(str(number)) for number in range(OF_A_SOURCE)]
    assert statuses(await ask(gateway, made_up)) == [200] * OF_A_SOURCE
    assert statuses(await ask(gateway, [key("new")])) == [429]
    # What a client says of its address counts for nothing.
    assert statuses(await ask(gateway, ["1.2.3.4"], header="x-forwarded-for")) == [429]
    assert statuses(await ask(gateway, [key("new")], source="127.0.0.2")) == [200]


async def test_clients_of_openai_read_the_refusal(gateway: Gateway) -> None:
    answers = await ask(gateway, [key("one")] * (OF_A_CREDENTIAL + 1), path="/v1/models")
    status, kind, body = answers[-1]
    assert (status, kind) == (429, "application/json")
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"


async def test_inference_has_limits_of_its_own(gateway: Gateway) -> None:
    for _ in range(OF_A_SOURCE + 1):
        assert (await gateway.post(headers={"authorization": key("one")}))[0] == 200


async def test_a_long_credential_is_kept_by_its_end(gateway: Gateway) -> None:
    long = [key("e" * 40).replace("tk-", f"tk-{head * 7_000}") for head in "abcde"]
    assert statuses(await ask(gateway, long)) == [200] * OF_A_CREDENTIAL + [429]
