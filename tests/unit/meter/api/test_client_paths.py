"""Wrong paths of clients: the answer names the path that was meant, or what there is."""

import json

import pytest

from meter.api import inference
from meter.api.client_paths import advise, is_of_clients
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "POST to /v1/chat/completions"),
        ("/v1/v1/chat/completions", "POST to /v1/chat/completions"),
        ("/v1/chat/completions/", "POST to /v1/chat/completions"),
        ("/v1/chat/completion", "POST to /v1/chat/completions"),
        ("/V1/Chat/Completions", "POST to /v1/chat/completions"),
        ("/api/chat/completions", "POST to /v1/chat/completions"),
        ("/openai/deployments/my-model/chat/completions", "POST to /v1/chat/completions"),
        ("/openai/v1/embeddings", "POST to /v1/embeddings"),
        ("/v1/engines/davinci/completions", "POST to /v1/completions"),
        ("/api/v1/embeddings/", "POST to /v1/embeddings"),
        ("/v1/embeding", "POST to /v1/embeddings"),
        ("/models", "GET to /v1/models"),
        ("/v1/model", "GET to /v1/models"),
        ("/v1/chat/completions", "This path takes POST"),
        ("/api/v1/chat/completions", "This path takes POST"),
        ("/v1/credits", "This path takes GET"),
        ("/v1/moderations", "Moderations are not offered"),
        ("/api/v1/batches/batch_1", "one by one"),
        ("/v1/files/file-1/content", "content in the messages"),
        ("/v1/fine_tuning/jobs", "Fine-tuning is not offered"),
        ("/openai/v1/threads/thread_1/runs", "chat/completions"),
        ("/v1/something/else", "chat/completions, completions, embeddings"),
        ("/api/v1/llm/nothing", "GET models, key, credits, generation"),
    ],
)
def test_a_wrong_path_is_told_what_was_meant(path: str, meant: str) -> None:
    said = advise(path)
    assert said is not None
    assert meant in said
    assert is_of_clients(path)


@pytest.mark.parametrize("path", ["/", "/nowhere", "/api/v1/admin/nowhere", "/docsx"])
def test_other_paths_are_no_clients(path: str) -> None:
    assert advise(path) is None
    assert not is_of_clients(path)


def test_no_path_of_our_own_api_is_taken_for_one_of_clients() -> None:
    paths = json.loads((ROOT / "openapi.json").read_text())["paths"]
    native = ("model", "models", "key", "generation", *(path[1:] for path in inference.PATHS))
    ours = [
        path
        for path in paths
        if path.startswith("/api/v1/")
        and not path.startswith(("/api/v1/llm/", "/api/v1/models/", "/api/v1/model/"))
        and path.removeprefix("/api/v1/") not in native
    ]
    assert len(ours) > 50
    assert [path for path in ours if is_of_clients(path)] == []


def test_a_long_path_and_a_key_in_it_do_not_come_back() -> None:
    said = advise("/v1/chat/completion/" + "tk-secret" * 10_000)
    assert said is not None
    assert "secret" not in said
