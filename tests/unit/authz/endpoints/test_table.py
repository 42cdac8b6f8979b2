"""The table of endpoints, and the facts of endpoints that the meter relies on."""

import json
from base64 import b64encode
from typing import Any

import pytest

from authz.decision import ErrorShape, Reason, error_body
from authz.endpoints.body import Body, parse
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.table import ALL, ENDPOINTS, PREFIXES, error_shape
from meter.pricing.prices import Demand
from meter.usage.endpoints import WITHOUT_COMPLETION
from tollkeeper.simulator.answers.measured import MP3_FRAME

NAMES = {
    "chat/completions": "chat_completions",
    "completions": "completions",
    "embeddings": "embeddings",
    "messages": "messages",
    "responses": "responses",
    "images": "images",
    "images/generations": "images",
    "rerank": "rerank",
    "audio/speech": "speech",
    "audio/transcriptions": "transcriptions",
}


def test_exactly_these_paths_reach_a_provider() -> None:
    assert {path: endpoint.name for path, endpoint in ENDPOINTS.items()} == {
        prefix + path: name for prefix in PREFIXES for path, name in NAMES.items()
    }


def test_names_and_paths_are_unique() -> None:
    assert len({endpoint.name for endpoint in ALL}) == len(ALL)
    assert len(ENDPOINTS) == len(PREFIXES) * sum(len(endpoint.paths) for endpoint in ALL)


# What these cannot do without.
NEEDED: dict[str, dict[str, Any]] = {
    "images": {"prompt": "a"},
    "rerank": {"query": "a", "documents": ["b"]},
    "speech": {"input": "a"},
    "transcriptions": {
        "input_audio": {"data": b64encode(MP3_FRAME).decode(), "format": "mp3"},
    },
}


@pytest.mark.parametrize("endpoint", ALL, ids=lambda endpoint: endpoint.name)
def test_the_meter_knows_which_endpoints_have_no_completion(endpoint: Endpoint) -> None:
    body = parse(json.dumps({"model": "x", **NEEDED.get(endpoint.name, {})}).encode())
    assert isinstance(body, Body)
    demand = endpoint.bound(body, False)
    assert isinstance(demand, Demand)
    has_no_completion = demand.completion_tokens == 0 and demand.extra_completion_tokens == 0
    assert has_no_completion == (endpoint.name in WITHOUT_COMPLETION)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", ErrorShape.OPENAI),
        ("/api/v1/llm/chat/completions", ErrorShape.OPENAI),
        ("/api/v1/chat/completions?a=b", ErrorShape.OPENROUTER),
        ("/api/v1/responses", ErrorShape.OPENROUTER),
        ("/v1/messages?beta=true", ErrorShape.ANTHROPIC),
        ("/api/v1/messages", ErrorShape.ANTHROPIC),
        ("/elsewhere", ErrorShape.OPENAI),
    ],
)
def test_errors_have_the_shape_of_the_clients_of_a_path(path: str, shape: ErrorShape) -> None:
    assert error_shape(path) is shape


def test_openrouters_clients_read_a_number_as_the_code() -> None:
    kind = Reason.MODEL_NOT_FOUND.value
    body = json.loads(error_body(kind, "No such model.", "model", ErrorShape.OPENROUTER))
    told = {"error_code": kind.code, "error_type": kind.type, "param": "model"}
    assert body == {"error": {"code": 404, "message": "No such model.", "metadata": told}}
