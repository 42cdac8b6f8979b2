"""Providers and routes as clusters of Envoy."""

import json
from dataclasses import replace
from typing import Any

import pytest

from meter.errors import InvalidRequest
from meter.routing.route import Route, RouteProvider
from meter.xds.clusters import (
    Document,
    UpstreamProvider,
    cluster_set,
    render_clusters,
    upstream_address,
)

OPENAI = UpstreamProvider("openai", "https://api.openai.com/v1/", frozenset({429, 503}))
ANTHROPIC = UpstreamProvider("anthropic", "https://api.anthropic.com/v1", frozenset({429, 529}))
LOCAL = UpstreamProvider("local", "http://10.0.0.7:8000/v1")


def protocol(cluster: Document) -> dict[str, Any]:
    (options,) = cluster["typed_extension_protocol_options"].values()
    return dict(options)


def endpoints(cluster: Document) -> list[Document]:
    return [
        one for group in cluster["load_assignment"]["endpoints"] for one in group["lb_endpoints"]
    ]


def test_a_provider_is_verified_by_the_name_of_its_base_url() -> None:
    (cluster,) = render_clusters([OPENAI], [])
    (match,) = cluster["transport_socket_matches"]
    tls = match["transport_socket"]["typed_config"]
    validation = tls["common_tls_context"]["combined_validation_context"]
    (name,) = validation["default_validation_context"]["match_typed_subject_alt_names"]
    assert (cluster["name"], tls["sni"]) == ("provider-openai", "api.openai.com")
    assert name == {"san_type": "DNS", "matcher": {"exact": "api.openai.com"}}
    (endpoint,) = endpoints(cluster)
    assert endpoint["endpoint"]["hostname"] == "api.openai.com"
    assert endpoint["metadata"]["filter_metadata"]["tk"] == {"name": "openai", "path": "/v1"}
    assert "outlier_detection" not in cluster


def test_anthropic_says_where_it_looks_for_its_key() -> None:
    (cluster,) = render_clusters([replace(ANTHROPIC, takes_x_api_key=True)], [])
    (endpoint,) = endpoints(cluster)
    assert endpoint["metadata"]["filter_metadata"]["tk"] == {
        "name": "anthropic",
        "path": "/v1",
        "native_credential": "x-api-key",
    }


def test_a_route_asks_its_providers_in_order_after_answers_that_none_of_them_bills() -> None:
    members = (RouteProvider("anthropic", 5), RouteProvider("openai", 0), RouteProvider("gone", 1))
    *_, route = render_clusters([OPENAI, ANTHROPIC], [Route("fast", "*", members)])
    policy = protocol(route)["retry_policy"]
    groups = route["load_assignment"]["endpoints"]
    assert route["name"] == "route-fast"
    assert [group["priority"] for group in groups] == [0, 1]
    assert [one["endpoint"]["hostname"] for one in endpoints(route)] == [
        "api.openai.com",
        "api.anthropic.com",
    ]
    assert (policy["retriable_status_codes"], policy["num_retries"]) == ([429], 1)
    assert len(route["transport_socket_matches"]) == 2


def test_a_status_that_one_of_them_bills_is_never_a_reason_to_ask_another() -> None:
    members = (RouteProvider("local", 0), RouteProvider("openai", 0, weight=3))
    *_, route = render_clusters([OPENAI, LOCAL], [Route("fast", "*", members)])
    policy = protocol(route)["retry_policy"]
    assert "retriable" not in policy["retry_on"]
    assert "retriable_status_codes" not in policy
    assert [one["load_balancing_weight"] for one in endpoints(route)] == [1, 3]


def test_a_route_of_one_provider_has_no_cluster_of_its_own() -> None:
    route = Route("fast", "*", (RouteProvider("openai", 0), RouteProvider("gone", 1)))
    assert [one["name"] for one in render_clusters([OPENAI], [route])] == ["provider-openai"]


def test_the_version_is_the_digest_of_what_is_said() -> None:
    first = cluster_set(render_clusters([OPENAI, LOCAL], []))
    again = cluster_set(render_clusters([LOCAL, OPENAI], []))
    other = cluster_set(render_clusters([OPENAI], []))
    assert first == again
    assert first.version != other.version
    assert json.loads(first.body)["version_info"] == first.version
    assert first.names == ("provider-local", "provider-openai")


@pytest.mark.parametrize(
    ("base_url", "authority", "path"),
    [
        ("https://api.example.org", "api.example.org", ""),
        ("https://api.example.org:8443/a/b/", "api.example.org:8443", "/a/b"),
        ("http://[::1]:80/v1", "[::1]", "/v1"),
    ],
)
def test_a_base_url_says_host_port_and_path(base_url: str, authority: str, path: str) -> None:
    found = upstream_address(base_url)
    assert (found.authority, found.path) == (authority, path)


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://example.org",
        "https://",
        "https://user:secret@example.org/v1",
        "https://example.org/v1?key=a",
        "https://example.org/v1#a",
        "https://example.org:99999",
        "https://exa mple.org/v1",
        "https://example.org/v1\r\nx: y",
        "example.org/v1",
    ],
)
def test_a_base_url_that_no_request_can_be_sent_to_is_refused(base_url: str) -> None:
    with pytest.raises(InvalidRequest, match="no base URL"):
        render_clusters([UpstreamProvider("odd", base_url)], [])
