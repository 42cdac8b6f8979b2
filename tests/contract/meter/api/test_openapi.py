"""The OpenAPI document in the repository is the one that the meter serves, and is complete."""

import json
from typing import Any

import pytest

from meter.api.app import openapi_document
from tests.paths import ROOT

KEPT = ROOT / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What the meter serves."""
    return openapi_document()


def test_the_document_is_current(document: dict[str, Any]) -> None:
    assert json.loads(KEPT.read_text()) == document, (
        "run `python -m meter.api > openapi.json` and look at what changed"
    )


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    operations = [
        operation for operations in document["paths"].values() for operation in operations.values()
    ]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]


# The list of models, and reports by whoever holds the value of a key.
PUBLIC = ("/api/v1/llm", "/api/v1/key-reports")


def test_every_private_route_names_its_credential(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            schemes = {name for one in operation.get("security", []) for name in one}
            if path.startswith("/api/v1/admin"):
                assert schemes == {"administrator"}, path
            elif path.startswith("/api/v1/provider-reports"):
                assert schemes == {"providerReportsToken"}, path
            elif path.startswith(PUBLIC) or not path.startswith("/api/v1"):
                assert not schemes, path
            else:
                assert schemes == {"apiKey", "apiKeyHeader"}, path


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in document["components"]["schemas"]
