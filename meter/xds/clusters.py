"""Renders providers and routes as clusters of Envoy. Pure.

Each provider has the cluster `provider-<id>`, each route of several providers `route-<id>`, whose
endpoints have priorities. Envoy itself asks the next priority where a provider has provably not
begun: no connection, a refused stream, a connection that ended before a byte was sent, or a status
that no provider of the route bills. Path, host and credential belong to the attempt.
"""

import hashlib
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import Any, Final
from urllib.parse import urlsplit

from meter.errors import InvalidRequest
from meter.routing.route import Route, provider_cluster_name, route_cluster_name

CLUSTER_TYPE: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
# The secret in Envoy's own configuration that has the trusted roots: their file is the machine's.
TRUSTED_ROOTS: Final = "provider_roots"
# The namespace of an endpoint's metadata: `name` and `path` of its provider, and how it takes its
# key at paths of its own.
ENDPOINT_NAMESPACE: Final = "tk"
CONNECT_TIMEOUT_S: Final = 5
# Below the keep-alive of providers, so that no request meets a closing connection.
IDLE_TIMEOUT_S: Final = 30
MAX_REPLY_HEADERS: Final = 1_000
MAX_REPLY_HEADERS_KIB: Final = 8_192
UPSTREAM_BUFFER_BYTES: Final = 1_048_576
# A provider of a route is passed over after so many 502, 503 and 504 or failed connections in a
# row, or so many of any 5xx; first for so long.
GATEWAY_FAILURES_IN_A_ROW: Final = 3
SERVER_ERRORS_IN_A_ROW: Final = 10
FIRST_EJECTION_S: Final = 10
_NOT_BEGUN: Final = "connect-failure,refused-stream,reset-before-request"
_ATTEMPT_SCRIPT: Final = resources.files("meter.xds").joinpath("attempt.lua").read_text()

# A resource of Envoy as JSON: its shape is Envoy's, and Envoy checks it.
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UpstreamProvider:
    """A provider as Envoy needs to know it.

    `base_url` is `http(s)://host[:port][/path]`. `unbilled_statuses` are the answers that provably
    cost nothing, so that a request may go to another provider after them. `takes_x_api_key` says
    that it wants its key in `x-api-key` at the path of messages, and not in `authorization`.
    """

    id: str
    base_url: str
    unbilled_statuses: frozenset[int] = frozenset()
    takes_x_api_key: bool = False


@dataclass(frozen=True, slots=True)
class ClusterSet:
    """The clusters of one moment, as Envoy takes them; `version` is the digest of what they say."""

    version: str
    names: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """The parts of a base URL. `path` has no slash at its end, and is empty for the root."""

    is_tls: bool
    host: str
    port: int
    # Host and port as the provider is to be called, without a port that the scheme implies.
    authority: str
    path: str

    @property
    def is_ip(self) -> bool:
        """Return whether the host is an address, which needs no DNS and no server name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def upstream_address(base_url: str) -> UpstreamAddress:
    """Read a base URL. Raises InvalidRequest for one that no request can be sent to."""
    try:
        url = urlsplit(base_url)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise InvalidRequest(f"{base_url!r} is no base URL: {error}") from None
    if url.scheme not in ("https", "http") or not host:
        raise InvalidRequest(f"{base_url!r} is no base URL: write https://host/path")
    if url.username or url.password or url.query or url.fragment:
        raise InvalidRequest(
            f"{base_url!r} is no base URL: it may have scheme, host, port and path only"
        )
    is_tls = url.scheme == "https"
    if not base_url.isascii() or any(char <= " " or char == "\x7f" for char in base_url):
        raise InvalidRequest(f"{base_url!r} is no base URL: it has blanks or other characters")
    implied = 443 if is_tls else 80
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port in (None, implied) else f"{bracketed}:{port}"
    return UpstreamAddress(is_tls, host, port or implied, authority, url.path.rstrip("/"))


def render_clusters(
    providers: Sequence[UpstreamProvider], routes: Sequence[Route]
) -> list[Document]:
    """Return a cluster for each provider, and for each route that has several of them.

    A member of a route whose provider is not among `providers` is left out. Raises InvalidRequest
    for a base URL that no request can be sent to.
    """
    known = {one.id: one for one in providers}
    clusters = [
        _cluster(
            provider_cluster_name(one.id),
            [[(one, 1)]],
            {"retry_on": _NOT_BEGUN, "num_retries": 1},
        )
        for one in sorted(providers, key=lambda one: one.id)
    ]
    for route in sorted(routes, key=lambda one: one.id):
        members = sorted(
            (member for member in route.providers if member.provider in known),
            key=lambda member: (member.priority, member.provider),
        )
        if len(members) < 2:
            continue
        tiers = [
            [(known[member.provider], member.weight) for member in tier]
            for _, tier in groupby(members, key=lambda member: member.priority)
        ]
        chosen = [known[member.provider] for member in members]
        cluster = _cluster(route_cluster_name(route.id), tiers, _fallback(chosen))
        cluster["outlier_detection"] = {
            "consecutive_gateway_failure": GATEWAY_FAILURES_IN_A_ROW,
            "enforcing_consecutive_gateway_failure": 100,
            "consecutive_5xx": SERVER_ERRORS_IN_A_ROW,
            "enforcing_success_rate": 0,
            "base_ejection_time": f"{FIRST_EJECTION_S}s",
            "max_ejection_percent": 100,
        }
        clusters.append(cluster)
    return clusters


def cluster_set(clusters: Sequence[Document]) -> ClusterSet:
    """Return the clusters as the answer to Envoy's question for all of them."""
    resources_text = json.dumps(list(clusters), sort_keys=True)
    version = hashlib.sha256(resources_text.encode()).hexdigest()[:16]
    body = json.dumps(
        {"version_info": version, "type_url": CLUSTER_TYPE, "resources": list(clusters)},
        sort_keys=True,
    ).encode()
    return ClusterSet(version, tuple(cluster["name"] for cluster in clusters), body)


def _cluster(
    name: str, tiers: Sequence[Sequence[tuple[UpstreamProvider, int]]], retry_policy: Document
) -> Document:
    addresses = {
        provider.id: upstream_address(provider.base_url) for tier in tiers for provider, _ in tier
    }
    cluster: Document = {
        "@type": CLUSTER_TYPE,
        "name": name,
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 4096,
                    "max_pending_requests": 8192,
                    "max_requests": 8192,
                    "max_retries": 64,
                }
            ]
        },
        "per_connection_buffer_limit_bytes": UPSTREAM_BUFFER_BYTES,
        "upstream_connection_options": {
            "tcp_keepalive": {
                "keepalive_probes": 3,
                "keepalive_time": 30,
                "keepalive_interval": 10,
            }
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3"
                ".HttpProtocolOptions",
                "common_http_protocol_options": {
                    "idle_timeout": f"{IDLE_TIMEOUT_S}s",
                    "max_headers_count": MAX_REPLY_HEADERS,
                    "max_response_headers_kb": MAX_REPLY_HEADERS_KIB,
                },
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": _attempt_filters(),
                "retry_policy": retry_policy,
            }
        },
        "transport_socket_matches": [
            _transport_socket(provider, address) for provider, address in addresses.items()
        ],
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "priority": priority,
                    "lb_endpoints": [
                        _endpoint(provider, weight, addresses[provider.id])
                        for provider, weight in tier
                    ],
                }
                for priority, tier in enumerate(tiers)
            ],
        },
    }
    if all(address.is_ip for address in addresses.values()):
        cluster["type"] = "STATIC"
    else:
        # One logical host has all addresses of a name; a route needs a host for each provider.
        cluster["type"] = "LOGICAL_DNS" if len(addresses) == 1 else "STRICT_DNS"
        cluster["dns_lookup_family"] = "V4_PREFERRED"
    return cluster


def _fallback(providers: Sequence[UpstreamProvider]) -> Document:
    """Return when and how Envoy asks the next provider of a route.

    A status counts only where no provider of the route bills it: the policy is the whole cluster's.
    """
    policy: Document = {
        "retry_on": _NOT_BEGUN,
        "num_retries": len(providers) - 1,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority"
                ".previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host"
                    ".previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    unbilled = frozenset.intersection(*(one.unbilled_statuses for one in providers))
    if unbilled:
        policy["retry_on"] += ",retriable-status-codes"
        policy["retriable_status_codes"] = sorted(unbilled)
    return policy


def _attempt_filters() -> list[Document]:
    names: Mapping[str, str] = {
        "tk-provider": "name",
        "tk-base-path": "path",
        "tk-native-credential": "native_credential",
    }
    return [
        {
            "name": "tollkeeper.endpoint",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3"
                ".HeaderMutation",
                "mutations": {
                    "request_mutations": [
                        {
                            "append": {
                                "header": {
                                    "key": header,
                                    "value": f"%UPSTREAM_METADATA({ENDPOINT_NAMESPACE}:{member})%",
                                },
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        }
                        for header, member in names.items()
                    ]
                },
            },
        },
        {
            "name": "tollkeeper.attempt",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "stat_prefix": "attempt",
                "default_source_code": {"inline_string": _ATTEMPT_SCRIPT},
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3"
                ".UpstreamCodec"
            },
        },
    ]


def _endpoint(provider: UpstreamProvider, weight: int, address: UpstreamAddress) -> Document:
    return {
        "endpoint": {
            "address": {"socket_address": {"address": address.host, "port_value": address.port}},
            # The route writes this name into the host header.
            "hostname": address.authority,
        },
        "load_balancing_weight": weight,
        "metadata": {
            "filter_metadata": {
                ENDPOINT_NAMESPACE: {"name": provider.id, "path": address.path}
                | ({"native_credential": "x-api-key"} if provider.takes_x_api_key else {}),
                "envoy.transport_socket_match": {"provider": provider.id},
            }
        },
    }


def _transport_socket(provider: str, address: UpstreamAddress) -> Document:
    match: Document = {"name": provider, "match": {"provider": provider}}
    if not address.is_tls:
        raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
        return match | {
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {"@type": raw},
            }
        }
    # Without it nothing is verified, and anyone in between reads the credential.
    validation = {
        "default_validation_context": {
            "match_typed_subject_alt_names": [
                {
                    # An address cannot be a server name, and stands in another kind of SAN.
                    "san_type": "IP_ADDRESS" if address.is_ip else "DNS",
                    "matcher": {"exact": address.host},
                }
            ]
        },
        "validation_context_sds_secret_config": {"name": TRUSTED_ROOTS},
    }
    tls: Document = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "combined_validation_context": validation,
        },
    }
    if not address.is_ip:
        tls["sni"] = address.host
    return match | {
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    }
