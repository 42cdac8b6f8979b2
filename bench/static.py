"""Two plain Envoys: an upstream that costs next to nothing, and a proxy that only forwards.

The upstream answers a fixed chat completion. A `buffer` filter stands before the direct response:
without it Envoy answers a POST before the body is read and closes the connection, which would
cost one TCP connect per request and flatter every ratio.
"""

import json
from pathlib import Path
from typing import Any, Final

import yaml

MODEL: Final = "openai/gpt-bench"
COST: Final = "0.00000345"
COMPLETION: Final = {
    "id": "gen-bench",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Good day. " * 20},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
        "cost": float(COST),
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
CATALOGUE: Final = {
    "data": [
        {
            "id": MODEL,
            "name": "Bench",
            "created": 1_700_000_000,
            "context_length": 128_000,
            "pricing": {"prompt": "0.00000015", "completion": "0.0000006"},
            "top_provider": {"max_completion_tokens": 4_096},
        }
    ]
}
MOST_BODY_BYTES: Final = 32 * 1024 * 1024
_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"


def stream_of(events: int) -> str:
    """Return a chat completion as server-sent events: this many, the last one with the usage."""
    chunk = {**COMPLETION, "object": "chat.completion.chunk", "usage": None}
    piece = {"index": 0, "delta": {"content": "Good day. "}, "finish_reason": None}
    lines = [json.dumps({**chunk, "choices": [piece]})] * (events - 1)
    lines += [json.dumps({**chunk, "choices": [], "usage": COMPLETION["usage"]}), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines)


def write_upstream(path: Path, port: int, events: int | None = None) -> None:
    """Write the configuration of the static upstream, which answers with so many events or JSON."""
    answer = (json.dumps(COMPLETION), "application/json")
    if events is not None:
        answer = (stream_of(events), "text/event-stream")
    routes = [
        _answer("/api/v1/models", json.dumps(CATALOGUE), "application/json"),
        _answer("/api/v1/chat/completions", *answer),
    ]
    buffer = {
        "name": "envoy.filters.http.buffer",
        "typed_config": {
            "@type": f"{_TYPES}.http.buffer.v3.Buffer",
            "max_request_bytes": MOST_BODY_BYTES,
        },
    }
    path.write_text(yaml.safe_dump(_envoy(port, routes, [buffer], clusters=[])))


def write_proxy(path: Path, port: int, upstream_port: int) -> None:
    """Write the configuration of the proxy that only forwards."""
    route = {
        "match": {"prefix": "/v1/"},
        "route": {"cluster": "upstream", "prefix_rewrite": "/api/v1/", "timeout": "0s"},
    }
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
    path.write_text(yaml.safe_dump(_envoy(port, [route], [], [cluster])))


def _answer(path: str, body: str, content_type: str) -> dict[str, Any]:
    return {
        "match": {"path": path},
        "direct_response": {"status": 200, "body": {"inline_string": body}},
        "response_headers_to_add": [
            {"header": {"key": "content-type", "value": content_type}},
            {"header": {"key": "x-generation-id", "value": "gen-bench"}},
        ],
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy(port: int, routes: list[Any], filters: list[Any], clusters: list[Any]) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "max_direct_response_body_size_bytes": MOST_BODY_BYTES,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [*filters, router],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    listener = {"name": "bench", "address": _address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}
