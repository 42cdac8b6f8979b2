"""Requests to further providers: their cluster, path, host and credential; and fallback."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
import pytest_asyncio
from aiohttp import web

from authz.decision import Edit
from authz.protos import ext_authz_pb2 as pb
from meter.ingest.ending import observation_from_facts
from meter.ingest.log_file.lines import read_line
from meter.ingest.stream.wire import facts_from_message
from meter.protos import access_log_pb2 as log_pb
from meter.routing.route import route_cluster_name
from meter.usage.usage import Source
from meter.xds.clusters import UpstreamProvider
from tests.e2e.envoy.envoy_harness import (
    PROVIDER_KEY,
    Document,
    Gateway,
    Pause,
    allow,
    envoy_beside,
    json_reply,
    running_gateway,
)
from tests.e2e.envoy.providers import (
    Published,
    Stub,
    allow_elsewhere,
    answering,
    decide_elsewhere,
    in_turn,
    key_of,
    stub,
)
from tests.patience import WAIT_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTE = route_cluster_name("r")


@dataclass(frozen=True, slots=True)
class Providers:
    """Envoy before two further providers and a route through both."""

    gateway: Gateway
    published: Published
    one: Stub
    two: Stub

    def reset(self) -> None:
        """Forget earlier tests."""
        self.gateway.reset()
        for each in (self.one, self.two):
            each.provider.answer = json_reply
            each.provider.requests.clear()

    async def is_live(
        self, url: str, provider: str, cluster: str | None = None, fallbacks: Sequence[str] = ()
    ) -> bool:
        """Return whether a request to that provider is answered."""
        decide_elsewhere(self.gateway, allow_elsewhere(provider, cluster, fallbacks))
        headers = {"content-type": "application/json"}
        async with self.gateway.client.post(
            f"{url}/v1/chat/completions", data=b"{}", headers=headers
        ) as reply:
            return reply.status == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Providers]:
    async with running_gateway() as gateway, stub("one") as one, stub("two") as two:
        published = Published.to(gateway.folder / "clusters" / "clusters.json")
        found = Providers(gateway, published, one, two)
        gateway.reset()
        await published.change([one.upstream, two.upstream], [in_turn(one, two)])
        await until(lambda: found.is_live(gateway.url, "two"), "the clusters are live")
        await until(lambda: found.is_live(gateway.url, "one", ROUTE), "the route is live")
        yield found


@pytest.fixture
def providers(running: Providers) -> Providers:
    running.reset()
    return running


async def provider_in_both_logs(gateway: Gateway, hold_id: str) -> str | None:
    """The provider that the meter reads, from either log alike."""
    line = await gateway.logged_of(hold_id)
    facts = read_line(json.dumps(line).encode()).meaning
    message = log_pb.StreamAccessLogsMessage(
        http_logs=log_pb.StreamAccessLogsMessage.HTTPAccessLogEntries(
            log_entry=[await gateway.entries.of(hold_id)]
        )
    )
    (streamed,) = facts_from_message(message.SerializeToString())
    assert facts == streamed
    return observation_from_facts(streamed, Source.STREAM).provider


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1/llm", "/api/v1"])
async def test_a_provider_has_its_own_path_host_and_credential(
    providers: Providers, prefix: str
) -> None:
    gateway = providers.gateway
    hold_id = decide_elsewhere(gateway, allow_elsewhere("one", edits=(Edit(1, 0, '"a":1'),)))
    status, headers, _ = await gateway.post(path=f"{prefix}/chat/completions")
    (received,) = providers.one.provider.requests
    assert (status, received.path, received.body) == (
        200,
        "/base/one/chat/completions",
        b'{"a":1}',
    )
    assert received.header("host") == f"127.0.0.1:{providers.one.port}"
    assert received.header("authorization") == f"Bearer {key_of('one')}"
    assert not [name for name, _ in received.headers if name.lower().startswith("tk-")]
    assert not [name for name in headers if name.lower().startswith("tk-")]
    assert not gateway.provider.requests
    assert not providers.two.provider.requests
    assert await provider_in_both_logs(gateway, hold_id) == "one"
    line = json.dumps(await gateway.logged_of(hold_id))
    entry = str(await gateway.entries.of(hold_id))
    assert "sk-planted" not in line + entry


async def test_messages_give_each_provider_its_key_where_it_looks_for_it(
    providers: Providers,
) -> None:
    """After a refusal by the first, the second is not shown the key of the first."""
    gateway, one, two = providers.gateway, providers.one, providers.two
    anthropic = replace(one.upstream, takes_x_api_key=True)
    await providers.published.change([anthropic, two.upstream], [in_turn(one, two)])

    async def seen(path: str) -> list[tuple[str, str | None, str | None]]:
        providers.reset()
        one.provider.answer = answering(429)
        decide_elsewhere(gateway, allow_elsewhere("one", ROUTE, ["two"]))
        assert (await gateway.post(path=path))[0] == 200
        received = [*one.provider.requests, *two.provider.requests]
        return [
            (each.path, each.header("authorization"), each.header("x-api-key")) for each in received
        ]

    async def is_live() -> bool:
        return (await seen("/v1/messages"))[0][2] == key_of("one")

    await until(is_live, "the cluster is live")
    assert await seen("/v1/messages") == [
        ("/base/one/messages", None, key_of("one")),
        ("/base/two/messages", f"Bearer {key_of('two')}", None),
    ]
    assert await seen("/v1/chat/completions") == [
        ("/base/one/chat/completions", f"Bearer {key_of('one')}", None),
        ("/base/two/chat/completions", f"Bearer {key_of('two')}", None),
    ]
    providers.reset()
    await providers.published.change([one.upstream, two.upstream], [in_turn(one, two)])


async def test_an_ordinary_request_takes_the_default_path_and_logs_no_provider(
    providers: Providers,
) -> None:
    gateway = providers.gateway
    hold_id = gateway.reset()
    chosen = {"tk-cluster": "provider-one", "tk-key-one": "Bearer forged"}
    status, _, _ = await gateway.post(headers=chosen)
    (received,) = gateway.provider.requests
    assert (status, received.path) == (200, "/api/v1/chat/completions")
    assert received.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert not providers.one.provider.requests
    assert await provider_in_both_logs(gateway, hold_id) is None
    assert "provider" not in (await gateway.logged_of(hold_id))["usage"]


async def test_what_a_client_says_of_clusters_and_credentials_changes_nothing(
    providers: Providers,
) -> None:
    gateway = providers.gateway
    forged = {
        "tk-cluster": "provider-two",
        "tk-key-one": "Bearer forged",
        "tk-key-two": "Bearer forged",
        "tk-provider": "two",
        "tk-base-path": "/forged",
        "tk-path": "/forged",
    }
    decide_elsewhere(gateway, allow_elsewhere("one"))
    status, _, _ = await gateway.post(headers=forged)
    (received,) = providers.one.provider.requests
    assert (status, received.path) == (200, "/base/one/chat/completions")
    assert not providers.two.provider.requests
    # The route has a provider for which the decision has no credential.
    providers.one.provider.answer = answering(429)
    decide_elsewhere(gateway, allow_elsewhere("one", ROUTE))
    status, _, _ = await gateway.post(headers=forged)
    assert status == 503
    assert not providers.two.provider.requests
    assert providers.one.keys_seen == {f"Bearer {key_of('one')}"}


async def test_a_provider_that_needs_no_key_gets_none(providers: Providers) -> None:
    decide_elsewhere(providers.gateway, allow_elsewhere("one", key=""))
    status, _, _ = await providers.gateway.post()
    assert (status, providers.one.keys_seen) == (200, {None})


async def test_a_cluster_that_envoy_does_not_have_is_an_outage(providers: Providers) -> None:
    gateway = providers.gateway
    hold_id = decide_elsewhere(gateway, allow_elsewhere("three"))
    status, _, body = await gateway.post()
    assert (status, json.loads(body)["error"]["code"]) == (503, "provider_unavailable")
    line = await gateway.logged_of(hold_id)
    assert (line["flags"], line["upstream_sent_ms"]) == ("NC", None)
    assert not gateway.provider.requests


async def test_an_envoy_without_the_function_sends_no_credential_to_another_provider(
    providers: Providers,
) -> None:
    gateway, decision = providers.gateway, allow_elsewhere("one")
    # As a script that does not know of clusters reads it.
    del decision.dynamic_metadata.fields["cluster"]
    decide_elsewhere(gateway, decision)
    status, _, body = await gateway.post()
    assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")
    assert not gateway.provider.requests


async def test_an_envoy_without_the_route_sends_no_body_to_another_provider() -> None:
    def without_route(document: Document) -> None:
        (listener,) = document["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        (host,) = manager["route_config"]["virtual_hosts"]
        host["routes"] = [one for one in host["routes"] if one["name"] != "inference_elsewhere"]
        del next(one for one in host["routes"] if one["name"] == "inference")["metadata"]

    async with running_gateway(change=without_route) as gateway:
        gateway.reset()
        decide_elsewhere(gateway, allow_elsewhere("one"))
        status, _, body = await gateway.post()
        assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")
        assert not gateway.provider.requests


@pytest.mark.parametrize("status", [429, 503])
async def test_the_next_provider_is_asked_with_its_own_credential(
    providers: Providers, status: int
) -> None:
    gateway = providers.gateway
    providers.one.provider.answer = answering(status)
    hold_id = decide_elsewhere(gateway, allow_elsewhere("one", ROUTE, ["two"]))
    answer, _, _ = await gateway.post(b'{"model": "m"}')
    (first,), (second,) = providers.one.provider.requests, providers.two.provider.requests
    assert (answer, second.path, second.body) == (
        200,
        "/base/two/chat/completions",
        b'{"model": "m"}',
    )
    assert first.path == "/base/one/chat/completions"
    assert second.header("host") == f"127.0.0.1:{providers.two.port}"
    assert providers.one.keys_seen == {f"Bearer {key_of('one')}"}
    assert providers.two.keys_seen == {f"Bearer {key_of('two')}"}
    for received in (first, second):
        assert not [name for name, _ in received.headers if name.lower().startswith("tk-")]
        assert "sk-planted-for" in str(received.headers)
    assert "sk-planted-for-two" not in str(first.headers)
    assert "sk-planted-for-one" not in str(second.headers)
    assert await provider_in_both_logs(gateway, hold_id) == "two"


async def test_a_provider_that_cannot_be_connected_is_passed_over(providers: Providers) -> None:
    gateway, published = providers.gateway, providers.published
    away = UpstreamProvider("away", "http://127.0.0.1:9/v1", frozenset({429}))
    away_stub = Stub("away", 9, providers.one.provider)
    await published.change(
        [providers.one.upstream, providers.two.upstream, away],
        [in_turn(providers.one, providers.two), in_turn(away_stub, providers.two, route="away")],
    )
    cluster = route_cluster_name("away")
    live = partial(providers.is_live, gateway.url, "away", cluster, ["two"])
    await until(live, "the route is live")
    providers.reset()
    hold_id = decide_elsewhere(gateway, allow_elsewhere("away", cluster, ["two"]))
    status, _, _ = await gateway.post()
    assert status == 200
    assert providers.two.keys_seen == {f"Bearer {key_of('two')}"}
    assert await provider_in_both_logs(gateway, hold_id) == "two"


@pytest.mark.parametrize("dies", ["before an answer", "within an answer"])
async def test_a_request_that_may_have_begun_is_not_sent_again(
    providers: Providers, dies: str
) -> None:
    gateway = providers.gateway

    async def die(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if dies == "within an answer":
            reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await reply.prepare(request)
            await reply.write(b'data: {"id": "gen-1"}\n\n')
            # Until the head is sent, the connection must stand.
            await asyncio.sleep(0)
        request.transport.abort()
        return web.Response()

    providers.one.provider.answer = die
    hold_id = decide_elsewhere(gateway, allow_elsewhere("one", ROUTE, ["two"]))
    if dies == "before an answer":
        status, _, body = await gateway.post()
        assert (status, json.loads(body)["error"]["code"]) == (503, "provider_unavailable")
    else:
        with pytest.raises(Exception, match=r"payload|disconnected|closed"):
            await gateway.post()
    assert len(providers.one.provider.requests) == 1
    assert not providers.two.provider.requests
    assert await provider_in_both_logs(gateway, hold_id) == "one"


@pytest.mark.parametrize("status", [400, 500, 504])
async def test_answers_that_may_be_billed_are_passed_on(providers: Providers, status: int) -> None:
    gateway = providers.gateway
    providers.one.provider.answer = answering(status)
    decide_elsewhere(gateway, allow_elsewhere("one", ROUTE, ["two"]))
    assert (await gateway.post())[0] == status
    assert not providers.two.provider.requests


async def test_the_last_refusal_is_the_answer(providers: Providers) -> None:
    gateway = providers.gateway
    for each in (providers.one, providers.two):
        each.provider.answer = answering(429)
    hold_id = decide_elsewhere(gateway, allow_elsewhere("one", ROUTE, ["two"]))
    assert (await gateway.post())[0] == 429
    assert len(providers.two.provider.requests) == 1
    assert await provider_in_both_logs(gateway, hold_id) == "two"


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_an_own_key_that_is_refused_is_the_clients_to_mend(
    providers: Providers, status: int
) -> None:
    gateway = providers.gateway
    providers.one.provider.answer = answering(status, '{"error": {"message": "secret advice"}}')
    hold_id = decide_elsewhere(gateway, allow_elsewhere("one", is_own_key=True))
    answer, headers, body = await gateway.post()
    error = json.loads(body)["error"]
    assert (answer, error["code"], error["param"]) == (401, "own_key_rejected", None)
    assert "one refused your own key" in error["message"]
    assert str(status) in error["message"]
    assert "retry-after" not in headers
    assert (await gateway.logged_of(hold_id))["upstream_status"] == status
    # The same answer about a key of ours is an outage.
    decide_elsewhere(gateway, allow_elsewhere("one"))
    answer, _, body = await gateway.post()
    assert (answer, json.loads(body)["error"]["code"]) == (503, "provider_unavailable")


async def test_a_provider_is_added_on_two_envoys_without_a_dropped_request(
    providers: Providers,
) -> None:
    gateway, published = providers.gateway, providers.published
    headers = {"content-type": "application/json"}
    statuses: list[int] = []
    is_over = asyncio.Event()

    async def keep_asking(url: str) -> None:
        # The decision of each request is its own, whatever others are decided meanwhile.
        while not is_over.is_set():
            async with gateway.client.post(
                f"{url}/v1/chat/completions", data=b"{}", headers=headers
            ) as reply:
                await reply.read()
                statuses.append(reply.status)

    async def decide(request: pb.CheckRequest) -> pb.CheckResponse:
        asked = request.attributes.request.http.path
        if asked.endswith("/embeddings"):
            return allow_elsewhere("three")
        return allow_elsewhere("one") if len(statuses) % 2 else allow("0" * 32)

    async def third_is_live(url: str) -> bool:
        async with gateway.client.post(
            f"{url}/v1/embeddings", data=b"{}", headers=headers
        ) as reply:
            return reply.status == 200

    async with envoy_beside(gateway) as other, stub("three") as three:
        urls = (gateway.url, other)
        gateway.decisions.answer = decide
        asking = [asyncio.create_task(keep_asking(url)) for url in urls for _ in range(4)]
        await until(lambda: len(statuses) > 20, "requests are under way")
        await published.change(
            [providers.one.upstream, providers.two.upstream, three.upstream],
            [in_turn(providers.one, providers.two)],
        )
        for url in urls:
            await until(partial(third_is_live, url), f"it is live at {url}")
        # And a change of one that serves: its requests go over to the new cluster.
        moved = replace(providers.one.upstream, unbilled_statuses=frozenset({429}))
        base_url = moved.base_url.replace("127.0.0.1", "localhost")
        await published.change([replace(moved, base_url=base_url), three.upstream])
        await until(lambda: _has_host(providers.one, "localhost"), "the change is live")
        is_over.set()
        await asyncio.gather(*asking)
    assert set(statuses) == {200}
    assert three.keys_seen == {f"Bearer {key_of('three')}"}
    await published.change(
        [providers.one.upstream, providers.two.upstream], [in_turn(providers.one, providers.two)]
    )
    providers.reset()
    await until(lambda: providers.is_live(gateway.url, "one", ROUTE), "all is as before")


def _has_host(stubbed: Stub, name: str) -> bool:
    last = stubbed.provider.requests[-1]
    return (last.header("host") or "").startswith(name)


async def test_a_request_under_way_outlives_its_provider(providers: Providers) -> None:
    gateway, published, pause = providers.gateway, providers.published, Pause()

    async def slowly(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        await pause.wait()
        await reply.write(b"data: [DONE]\n\n")
        return reply

    async with stub("three") as three:
        three.provider.answer = slowly
        before = [providers.one.upstream, providers.two.upstream]
        route = [in_turn(providers.one, providers.two)]
        await published.change([*before, three.upstream], route)

        async def has_three() -> bool:
            return bool(await gateway.counter("cluster.provider-three.membership_total"))

        await until(has_three, "the third is live")
        removed = await gateway.counter("cluster_manager.cluster_removed")

        async def is_removed() -> bool:
            return await gateway.counter("cluster_manager.cluster_removed") > removed

        decide_elsewhere(gateway, allow_elsewhere("three"))
        asking = asyncio.create_task(gateway.post())
        await asyncio.wait_for(pause.reached.wait(), WAIT_S)
        await published.change(before, route)
        await until(is_removed, "the third is gone")
        pause.over.set()
        status, _, body = await asking
        assert (status, body) == (200, b"data: [DONE]\n\n")


async def test_an_envoy_starts_with_the_last_clusters_while_the_meter_is_away(
    providers: Providers,
) -> None:
    # Nothing publishes in this test: the second Envoy has the file alone.
    async with envoy_beside(providers.gateway) as other:
        assert await providers.is_live(other, "one")
        assert await providers.is_live(other, "one", ROUTE)


async def test_a_version_that_envoy_refuses_leaves_the_one_before(providers: Providers) -> None:
    gateway = providers.gateway
    file = gateway.folder / "clusters" / "clusters.json"
    good = file.read_bytes()
    document = json.loads(good)
    document["version_info"] = "broken"
    for resource in document["resources"]:
        resource["lb_policy"] = "NONE_OF_THESE"
    rejected = await gateway.counter("cluster_manager.cds.update_rejected")

    def put(body: bytes) -> None:
        beside = file.with_name("next")
        beside.write_bytes(body)
        beside.replace(file)

    async def is_rejected() -> bool:
        return await gateway.counter("cluster_manager.cds.update_rejected") > rejected

    put(json.dumps(document).encode())
    await until(is_rejected, "Envoy has refused it")
    assert await providers.is_live(gateway.url, "one")
    # One that starts with such a file serves the default provider, and takes the next version.
    for broken in (file.read_bytes(), b"{"):
        put(broken)
        async with envoy_beside(gateway) as other:
            gateway.reset()
            headers = {"content-type": "application/json"}
            url = f"{other}/v1/chat/completions"
            async with gateway.client.post(url, data=b"{}", headers=headers) as reply:
                assert reply.status == 200
            put(good)
            await until(partial(providers.is_live, other, "one"), "the next version is live")


async def test_an_envoy_that_asks_the_meter_has_what_it_says_and_tells_what_it_refuses() -> None:
    async with (
        running_gateway(has_clusters_file=False) as gateway,
        stub("one") as one,
        stub("two") as two,
    ):
        published = Published.to(None)
        providers = Providers(gateway, published, one, two)
        providers.reset()
        is_broken = False

        async def discover(request: web.Request) -> web.StreamResponse:
            asked = await request.json()
            assert request.path == "/v3/discovery:clusters"
            asking = (asked["node"]["id"], asked.get("version_info", ""), None)
            clusters = published.publisher.asked_by(*asking)
            if clusters is None:
                return web.Response(status=304)
            body = clusters.body.replace(b'"circuit_breakers"', b'"circus"') if is_broken else None
            return web.Response(body=body or clusters.body, content_type="application/json")

        await published.change([one.upstream])
        gateway.meter_api.answer = discover
        await until(partial(providers.is_live, gateway.url, "one"), "the first is live")
        is_broken = True
        await published.change([one.upstream, two.upstream])
        await until(lambda: published.publisher.problem, "the refusal is known")
        assert "Envoy envoy refuses the clusters" in str(published.publisher.problem)
        # The version before stays.
        assert await providers.is_live(gateway.url, "one")
        is_broken = False
        await until(partial(providers.is_live, gateway.url, "two"), "the second is live")
        await until(lambda: published.publisher.problem is None, "all is well")
