"""Requests drawn from the OpenAPI document, and the judgement of their answers.

A module of its own, which the tests import when they run: schemathesis takes seconds of CPU.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

import httpx2
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from authz.endpoints.table import ALL
from meter.api.app import openapi_document

Case: TypeAlias = "schemathesis.Case[Any]"
# The codes for a request that does not fit its description.
INVALID = {"invalid_request", "invalid_json", "invalid_amount", "unsupported_media_type"}
NOW = datetime.now(UTC).replace(microsecond=0)

# The formats that a schema names but cannot define.
schemathesis.openapi.format(
    "date-time",
    st.integers(3600, 3_000 * 86_400).map(
        lambda later_s: f"{NOW + timedelta(seconds=later_s):%Y-%m-%dT%H:%M:%SZ}"
    ),
)
schemathesis.openapi.format(
    "date", st.dates(datetime(2000, 1, 1).date(), datetime(2999, 12, 31).date()).map(str)
)
schemathesis.openapi.format(
    "network", st.ip_addresses(v=4).map(str) | st.sampled_from(["10.0.0.0/8", "2001:db8::/32"])
)
schemathesis.openapi.format(
    "printable", st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1)
)

SERVED_BY_ENVOY = tuple(f"/{path}" for endpoint in ALL for path in endpoint.paths)


def _document() -> dict[str, Any]:
    """The document without the routes that Envoy serves, and without cursors, which are signed."""
    document = openapi_document()
    for path in list(document["paths"]):
        if path.endswith(SERVED_BY_ENVOY):
            del document["paths"][path]
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["parameters"] = [
                one for one in operation.get("parameters", ()) if one["name"] != "cursor"
            ]
    return document


SCHEMA = schemathesis.openapi.from_dict(
    _document(),
    config=schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}}),
)
OPERATIONS: list[Any] = [cast(Any, one).ok() for one in SCHEMA.get_all_operations()]


def _request_of(case: Case) -> dict[str, Any]:
    body: dict[str, Any] = {} if case.body is NOT_SET else {"json": case.body}
    return {
        "method": case.method,
        "url": case.formatted_path,
        "params": case.query,
        "headers": dict(case.headers),
        **body,
    }


def _code_of(body: dict[str, Any]) -> str:
    """The code of an error, in the shape of our API, of OpenAI's or of OpenRouter's."""
    error = body.get("error", body)
    code: str = error.get("metadata", {}).get("error_code") or error["code"]
    return code


def _judge(case: Case, answer: httpx2.Response) -> None:
    assert answer.status_code < 500, answer.text
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    case.validate_response(answer, checks=checks)
    if answer.status_code < 400:
        return
    code = _code_of(answer.json())
    assert code not in INVALID, answer.text
    described = case.operation.definition.raw["responses"][str(answer.status_code)]["description"]
    assert f"`{code}`" in described, f"{code} is not documented: {described}"


def fuzz(
    operation: Any,
    path_parameters: Mapping[str, str],
    examples: int,
    send: Callable[[dict[str, Any]], httpx2.Response],
) -> None:
    """Send so many cases of an operation. Raises AssertionError for an answer that does not fit."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(path_parameters=dict(path_parameters)))
    def ask(case: Case) -> None:
        _judge(case, send(_request_of(case)))

    ask()
