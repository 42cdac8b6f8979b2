"""The OpenAPI document in the repository is the one that the meter serves, and is complete."""

import json
import re
from typing import Any

import pytest

from meter.api.app import openapi_document
from meter.api.inference import ERRORS
from tests.paths import ROOT

KEPT = ROOT / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document that the meter serves."""
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
PUBLIC = (
    *(f"{base}/model" for base in ("/v1", "/api/v1/llm", "/api/v1")),
    "/api/v1/key-reports",
)
INFERENCE = [
    f"{prefix}/{name}"
    for prefix in ("/v1", "/api/v1/llm", "/api/v1")
    for name in ("chat/completions", "completions", "embeddings", "messages")
]


def test_every_private_route_names_its_credential(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            schemes = {name for one in operation["security"] for name in one}
            if path.startswith("/api/v1/admin"):
                assert schemes == {"administrator"}, path
            elif path.startswith("/api/v1/provider-reports"):
                assert schemes == {"providerReportsToken"}, path
            elif path.startswith("/api/v1/webhooks"):
                assert schemes == {"stripeSignature"}, path
            elif path.startswith(PUBLIC) or not path.startswith(("/api/v1", "/v1")):
                assert not schemes, path
            else:
                assert schemes == {"apiKey", "apiKeyHeader"}, path


def test_every_tag_is_described(document: dict[str, Any]) -> None:
    used = {
        tag
        for operations in document["paths"].values()
        for operation in operations.values()
        for tag in operation["tags"]
    }
    assert {tag["name"] for tag in document["tags"]} == used
    assert all(tag["description"] for tag in document["tags"])


def test_inference_has_its_routes_and_every_code_of_its_errors(document: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \| `(\w+)` \|", page, re.MULTILINE)
    explained = {(status, code) for statuses, code in rows for status in statuses.split(", ")}
    listed = {(str(status), code) for status, codes in ERRORS.items() for code in codes}
    assert listed == explained
    for path in INFERENCE:
        operation = document["paths"][path]["post"]
        statuses = operation["responses"].keys() - {"200"}
        assert statuses == {str(status) for status in ERRORS}
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert document["components"]["schemas"][schema.rpartition("/")[2]]["examples"]


def test_no_page_for_users_names_a_rule_by_number(document: dict[str, Any]) -> None:
    assert not re.search(r"\b[RV]\d{1,2}\b", json.dumps(document))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in document["components"]["schemas"]
