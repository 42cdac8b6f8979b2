"""The Kubernetes snippets: their shapes, and what they make of an Envoy, run by a real one.

No cluster is at hand. The listener that Envoy Gateway and istiod generate is modelled here as far
as it matters (names and order of filters); the patches are applied to it as documented.
"""

import contextlib
import copy
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.admin import Admin, chat
from tests.e2e.envoy.authz_process import (
    ENVOY_FOLDER,
    EXT_AUTHZ,
    WHOLE_BODY_CHECK,
    AuthzProcess,
    Document,
    authz_running,
    cluster_at,
    envoy_running,
    manager_of,
    point,
    snippet,
)
from tests.e2e.envoy.kubernetes_shapes import PROVIDER, misfits, misfits_of
from tests.e2e.raw_http import send_json
from tests.e2e.running_stack import RunningStack
from tests.patience import WAIT_S
from tollkeeper.stack.home import locate
from tollkeeper.stack.servers.ports import free_port

FOLDER = ENVOY_FOLDER / "kubernetes"
MANAGER = "/default_filter_chain/filters/0/typed_config"
LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
LOG = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
# What Envoy Gateway calls the filter of a SecurityPolicy.
GATEWAY_EXT_AUTHZ = f"{EXT_AUTHZ}/securitypolicy/default/tollkeeper"


def documents(name: str) -> list[Document]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def spec(name: str, kind: str) -> Document:
    (found,) = [one["spec"] for one in documents(name) if one["kind"] == kind]
    return dict(found)


@pytest.mark.parametrize("name", ["envoy-gateway.yaml", "istio.yaml"])
def test_resources_have_the_shapes_that_are_documented(name: str) -> None:
    for document in documents(name):
        assert misfits_of(document) == []
        document["spec"]["misspelt"] = True
        assert misfits_of(document) == [".spec.misspelt: unknown"]


def test_the_mesh_asks_authz_and_fails_closed() -> None:
    (values,) = documents("istio-mesh.yaml")
    (provider,) = values["meshConfig"]["extensionProviders"]
    assert misfits(provider, PROVIDER) == []
    assert spec("istio.yaml", "AuthorizationPolicy")["provider"]["name"] == provider["name"]
    assert spec("istio.yaml", "AuthorizationPolicy")["rules"] == [{}]
    assert provider["envoyExtAuthzGrpc"]["failOpen"] is False
    rules = spec("istio.yaml", "VirtualService")["http"]
    assert {rule["retries"]["attempts"] for rule in rules} == {0}
    assert [rule["name"] for rule in rules] == list(inference_routes("envoy.yaml"))


def inference_routes(name: str) -> dict[str, Document]:
    """The routes to the default provider, by name."""
    (listener,) = snippet(name)["static_resources"]["listeners"]
    return {one["name"]: one for one in routes_to_the_provider(listener)}


def routes_to_the_provider(listener: Document) -> list[Document]:
    (host,) = manager_of(listener)["route_config"]["virtual_hosts"]
    return [one for one in host["routes"] if one.get("route", {}).get("cluster") == "provider"]


def production(name: str) -> Document:
    """A filter or log of the production configuration."""
    manager = manager_of(snippet("envoy.yaml")["static_resources"]["listeners"][0])
    parts = [*manager["http_filters"], *manager["access_log"]]
    return dict(next(one for one in parts if one["name"] == name))


def generated(name: str, check: Document) -> Document:
    """A listener as a control plane makes it: the check, the router and a log of its own."""
    (listener,) = copy.deepcopy(snippet("existing-envoy.yaml"))["static_resources"]["listeners"]
    listener["name"] = name
    listener["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}
    manager = manager_of(listener)
    manager["http_filters"] = [check, manager["http_filters"][-1]]
    manager["access_log"] = [{"name": "control-plane", "typed_config": {"@type": LOG}}]
    # What a control plane leaves as it is, until a patch says otherwise.
    del manager["internal_address_config"], manager["common_http_protocol_options"]
    (host,) = manager["route_config"]["virtual_hosts"]
    del host["typed_per_filter_config"]
    for route in routes_to_the_provider(listener):
        route.pop("typed_per_filter_config", None)
    for route in host["routes"]:
        if route["name"] == "not_found":
            route["typed_per_filter_config"] = {
                check["name"]: route["typed_per_filter_config"][EXT_AUTHZ]
            }
    return dict(listener)


def check_over_grpc(name: str, cluster: str, **more: Any) -> Document:
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": "2s"},
        **more,
    }
    return {"name": name, "typed_config": config}


def by_envoy_gateway() -> tuple[Document, list[Document]]:
    """The listener after SecurityPolicy, EnvoyExtensionPolicy and EnvoyPatchPolicy."""
    auth = spec("envoy-gateway.yaml", "SecurityPolicy")["extAuth"]
    body = {"max_request_bytes": auth["bodyToExtAuth"]["maxRequestBytes"], "pack_as_bytes": True}
    headers = {"patterns": [{"exact": one} for one in auth["headersToExtAuth"]]}
    check = check_over_grpc(
        GATEWAY_EXT_AUTHZ, "authz", with_request_body=body, allowed_headers=headers
    )
    listener, clusters = generated("gateway", check), []
    manager = manager_of(listener)
    (lua,) = spec("envoy-gateway.yaml", "EnvoyExtensionPolicy")["lua"]
    source = {"inline_string": lua["inline"]}
    script = {"@type": LUA, "default_source_code": source}
    manager["http_filters"].insert(1, {"name": "envoy.filters.http.lua", "typed_config": script})
    for patch in spec("envoy-gateway.yaml", "EnvoyPatchPolicy")["jsonPatches"]:
        operation = patch["operation"]
        if patch["type"].endswith(".Cluster"):
            clusters.append(operation["value"])
            continue
        name, _, at = operation["path"].removeprefix(f"{MANAGER}/").partition("/")
        if at:
            manager[name].insert(int(at), operation["value"])
        else:
            manager[name] = operation["value"]
    return listener, clusters


def merged(old: Any, new: Any) -> Any:
    """Protobuf's way: messages member by member, lists one behind the other."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {k: merged(old[k], new[k]) if k in old and k in new else {**old, **new}[k]
                for k in {**old, **new}}  # fmt: skip
    return old + new if isinstance(old, list) and isinstance(new, list) else new


def by_istio() -> Document:
    """The listener after the provider and the EnvoyFilter."""
    (values,) = documents("istio-mesh.yaml")
    said = values["meshConfig"]["extensionProviders"][0]["envoyExtAuthzGrpc"]
    body = {
        "max_request_bytes": said["includeRequestBodyInCheck"]["maxRequestBytes"],
        "allow_partial_message": said["includeRequestBodyInCheck"]["allowPartialMessage"],
        "pack_as_bytes": said["includeRequestBodyInCheck"]["packAsBytes"],
    }
    cluster = f"outbound|{said['port']}||{said['service']}"
    status = {"code": int(said["statusOnError"])}
    check = check_over_grpc(EXT_AUTHZ, cluster, with_request_body=body, status_on_error=status)
    listener = generated("mesh", check)
    network = listener["filter_chains"][0]["filters"][0]
    for one in spec("istio.yaml", "EnvoyFilter")["configPatches"]:
        if one["applyTo"] == "CLUSTER":
            continue
        if one["applyTo"] == "LISTENER":
            listener.update(merged(listener, one["patch"]["value"]))
            continue
        if one["applyTo"] == "HTTP_ROUTE":
            name = one["match"]["routeConfiguration"]["vhost"]["route"]["name"]
            (route,) = [each for each in routes_to_the_provider(listener) if each["name"] == name]
            route.update(merged(route, one["patch"]["value"]))
            continue
        if one["applyTo"] == "VIRTUAL_HOST":
            (host,) = manager_of(listener)["route_config"]["virtual_hosts"]
            host.update(merged(host, one["patch"]["value"]))
            continue
        wanted = one["match"]["listener"]["filterChain"]["filter"]
        assert wanted["name"] == network["name"]
        if one["applyTo"] == "NETWORK_FILTER":
            network.update(merged(network, one["patch"]["value"]))
            continue
        filters = network["typed_config"]["http_filters"]
        names = [each["name"] for each in filters]
        at = names.index(wanted["subFilter"]["name"])
        if one["patch"]["operation"] == "MERGE":
            filters[at] = merged(filters[at], one["patch"]["value"])
        else:
            filters.insert(at, one["patch"]["value"])
    return listener


def test_the_patches_are_the_parts_of_the_production_configuration() -> None:
    usage = (
        "envoy.filters.http.json_to_metadata",
        "envoy.filters.http.sse_to_metadata",
        "tollkeeper.generation_id",
    )
    found = {one["name"]: one for one in manager_of(by_istio())["http_filters"]}
    shapes = ("tollkeeper.usage_of_responses", "tollkeeper.usage_of_messages")
    for name in ("tollkeeper.reply_room", "tollkeeper.splice", *usage, *shapes):
        assert found[name] == production(name)
    for name, route in inference_routes("envoy.yaml").items():
        (own,) = [one for one in routes_to_the_provider(by_istio()) if one["name"] == name]
        assert own.get("typed_per_filter_config") == route.get("typed_per_filter_config")
    second, own = found[WHOLE_BODY_CHECK]["typed_config"], production(WHOLE_BODY_CHECK)
    assert {**second, "grpc_service": ...} == {**own["typed_config"], "grpc_service": ...}
    assert list(found).index(WHOLE_BODY_CHECK) < list(found).index("tollkeeper.reply_room")
    for listener in (by_istio(), by_envoy_gateway()[0]):
        filters = {one["name"]: one for one in manager_of(listener)["http_filters"]}
        assert all(filters[name] == production(name) for name in usage)
        # Replies pass upwards: the id is noted before a filter buffers the reply.
        assert [name for name in filters if name in usage][-1] == "tollkeeper.generation_id"
    script = production("tollkeeper.splice")["typed_config"]["default_source_code"]
    (lua,) = spec("envoy-gateway.yaml", "EnvoyExtensionPolicy")["lua"]
    assert lua["inline"].strip() == script["inline_string"].strip()


def test_the_front_is_set_as_in_the_production_configuration() -> None:
    front = manager_of(snippet("envoy.yaml")["static_resources"]["listeners"][0])
    for listener in (by_istio(), by_envoy_gateway()[0]):
        name = "internal_address_config"
        assert manager_of(listener)[name] == front[name]
    action = "headers_with_underscores_action"
    options = manager_of(by_istio())["common_http_protocol_options"]
    assert options[action] == front["common_http_protocol_options"][action] == "DROP_HEADER"
    headers = spec("envoy-gateway.yaml", "ClientTrafficPolicy")["headers"]
    assert headers == {"withUnderscoresAction": "DropHeader"}


def options_of(clusters: list[Document], name: str) -> Document:
    """Return the HTTP options of a cluster."""
    (cluster,) = [one for one in clusters if one.get("name", name) == name]
    (options,) = cluster["typed_extension_protocol_options"].values()
    return dict(options)


def test_large_headers_of_replies_are_taken_as_in_the_production_configuration() -> None:
    production_options = options_of(
        snippet("envoy.yaml")["static_resources"]["clusters"], "provider"
    )
    existing = snippet("existing-envoy.yaml")["static_resources"]["clusters"]
    patches = spec("istio.yaml", "EnvoyFilter")["configPatches"]
    patched = [one["patch"]["value"] for one in patches if one["applyTo"] == "CLUSTER"]
    assert options_of(existing, "provider") == production_options
    assert options_of(patched, "provider") == production_options


@dataclass(frozen=True, slots=True)
class Platforms:
    """One Envoy with the listener of each control plane."""

    authz: AuthzProcess
    ports: dict[str, int]


def sockets(authz: AuthzProcess) -> list[Document]:
    """The services of the cluster, as sockets of this machine."""
    ingest = f"unix:{locate(authz.admin.stack.home).run}/ingest.sock"
    return [
        cluster_at(mesh_name("authz", 8083), f"unix:{authz.grpc}", is_http2=True),
        cluster_at(mesh_name("meter", 8082), ingest, is_http2=True),
    ]


def mesh_name(service: str, port: int) -> str:
    """Return the name that Istio gives to the cluster of a service."""
    return f"outbound|{port}||{service}.tollkeeper.svc.cluster.local"


@pytest.fixture(scope="module")
def platforms(stack: RunningStack) -> Iterator[Platforms]:
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp")))
        authz = closing.enter_context(
            authz_running(Admin(stack), folder, TOLLKEEPER_PROVIDER_REPORTS="true")
        )
        document = snippet("existing-envoy.yaml")
        point(document, authz, folder)
        static = document["static_resources"]
        pointed = manager_of(static["listeners"][0])["route_config"]
        gateway, clusters = by_envoy_gateway()
        static["listeners"] = [gateway, by_istio()]
        for listener in static["listeners"]:
            for route in routes_to_the_provider(listener):
                route["route"] = pointed["virtual_hosts"][0]["routes"][0]["route"]
        (patched,) = clusters
        local = cluster_at("x", f"unix:{locate(stack.home).run}/ingest.sock")
        patched.update(type="STATIC", load_assignment=local["load_assignment"])
        patched["load_assignment"]["cluster_name"] = patched["name"]
        static["clusters"] += [*sockets(authz), patched]
        closing.enter_context(envoy_running(document, folder))
        ports = {
            one["name"]: one["address"]["socket_address"]["port_value"]
            for one in static["listeners"]
        }
        yield Platforms(authz, ports)


@pytest.mark.parametrize("name", ["gateway", "mesh"])
@pytest.mark.parametrize("members", [{"max_tokens": None}, {"stream": True}])
def test_requests_are_checked_held_and_settled(
    platforms: Platforms, name: str, members: dict[str, Any]
) -> None:
    admin, origin = platforms.authz.admin, f"http://127.0.0.1:{platforms.ports[name]}"
    customer = admin.open_account(credit="1")
    path = "/v1/chat/completions"
    refused = send_json(origin, "POST", path, chat())
    assert (refused.status, refused.error["code"]) == (401, "missing_api_key")
    assert send_json(origin, "POST", path, chat(**members), [customer.bearer]).status == 200
    assert b'"max_tokens":' in admin.received()["body"]
    admin.wait_settled(customer)
    ((generation, cost),) = admin.usage(customer).items()
    assert cost == admin.bill_row(generation).cost
    (row,) = admin.rows("SELECT source FROM usage_records WHERE account_id = $1", customer.id)
    assert row["source"] == "stream"


def test_a_mesh_judges_the_caller_before_it_keeps_a_large_body(platforms: Platforms) -> None:
    admin, port = platforms.authz.admin, platforms.ports["mesh"]
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 20000000\r\n\r\n"
        client.sendall(head.encode() + b"{" + b" " * 100_000)
        assert client.recv(1_024).startswith(b"HTTP/1.1 401 ")
    customer = admin.open_account(credit="1")
    body = chat(messages=[{"role": "user", "content": "a " * 100_000}])
    origin = f"http://127.0.0.1:{port}"
    sent = send_json(origin, "POST", "/v1/chat/completions", body, [customer.bearer])
    assert sent.status == 200
    admin.wait_settled(customer)
