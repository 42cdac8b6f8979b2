"""Envoy's response flags: its notes on how a request ended (docs: %RESPONSE_FLAGS%)."""

from collections.abc import Iterable, Mapping
from typing import Final

# The short name of each flag, by its field in the protobuf message ResponseFlags. Observations
# keep flags in this order, so that both logs make the same text of the same flags.
SHORT_NAMES: Final[Mapping[str, str]] = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
# No provider saw a request with one of these flags: no healthy host, connection failure,
# overflow, no route, no cluster, rate limited, not authorized.
NEVER_REACHED: Final = frozenset({"UH", "UF", "UO", "NR", "NC", "RL", "UAEX"})

# The connection to the provider ended or broke: termination, reset, protocol error.
UPSTREAM_CUT: Final = frozenset({"UC", "UR", "UPE"})


def join_flags(names: Iterable[str]) -> str:
    """Return the known flags among these short names, with commas between, always in one order."""
    found = set(names)
    if not found:
        return ""
    return ",".join(name for name in SHORT_NAMES.values() if name in found)


def has_never_reached(flags: str) -> bool:
    """Return whether joined flags say that no provider saw the request."""
    return not NEVER_REACHED.isdisjoint(flags.split(","))


def has_been_cut_upstream(flags: str) -> bool:
    """Return whether joined flags say that the connection to the provider broke off."""
    return not UPSTREAM_CUT.isdisjoint(flags.split(","))
