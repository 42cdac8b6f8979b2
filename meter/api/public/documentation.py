"""The API's description of itself: the OpenAPI document, and pages that show it.

The pages come from files beside this process: no browser asks anybody else for anything, and
the content security policy holds it to that.
"""

from importlib import resources
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi

from meter.api.problems import PROBLEM_MEDIA_TYPE, ProblemReply

_TITLE: Final = "Tollkeeper meter API"
_DESCRIPTION: Final = """
Users, API keys, credit, usage and the ledger of a Tollkeeper.

- Money is a decimal string in US dollars; one credit is one dollar.
- Lists come in pages: pass `next_cursor` as `cursor` until it is null.
- Errors are problem details (RFC 9457) with a stable `code`. The model routes answer errors in
  OpenAI's shape instead, for OpenAI's clients.
- Everybody sends `Authorization: Bearer <API key or JWT>` or `x-api-key: <the same>`.
  Administrators need the scope `admin:read` or `admin:write`, or send the operator token.
"""
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tollkeeper meter API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false
});
"""
_ASSETS: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_ASSET_MAX_AGE_S: Final = 3600

router = APIRouter(prefix="/docs", include_in_schema=False)


@router.get("")
async def show_page() -> Response:
    """The page."""
    headers = {"Content-Security-Policy": _CONTENT_SECURITY_POLICY}
    return Response(_PAGE, headers=headers, media_type="text/html")


@router.get("/start.js")
async def show_start() -> Response:
    """The few lines that start the page."""
    return Response(_START, media_type="text/javascript")


@router.get("/swagger-ui-bundle.js")
async def show_bundle() -> Response:
    """Swagger UI."""
    return _asset("swagger-ui-bundle.js")


@router.get("/swagger-ui.css")
async def show_style() -> Response:
    """Swagger UI's style."""
    return _asset("swagger-ui.css")


def _asset(name: str) -> Response:
    file = resources.files("fastapi_offline") / "static" / name
    headers = {"Cache-Control": f"public, max-age={_ASSET_MAX_AGE_S}"}
    return Response(file.read_bytes(), headers=headers, media_type=_ASSETS[name])


def describe(app: FastAPI, version: str) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    document = get_openapi(
        title=_TITLE,
        version=version,
        description=_DESCRIPTION.strip(),
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = ProblemReply.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["ProblemReply"] = problem
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe_parameters(operation)
            _describe_errors(path, operation)
    return document


def _describe_parameters(operation: dict[str, Any]) -> None:
    """A header whose absence we answer ourselves looks optional, and is not."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "idempotency-key":
            parameter.update(name="Idempotency-Key", required=True)


def _describe_errors(path: str, operation: dict[str, Any]) -> None:
    """Every route's errors have one shape, so they are described in one place."""
    responses = operation["responses"]
    responses.pop("422", None)
    if path.startswith(("/healthz", "/readyz", "/metrics")):
        return
    if path.startswith(("/v1/", "/api/v1/llm/")):
        responses["default"] = {
            "description": "An error in OpenAI's shape",
            "content": {"application/json": {"schema": _OPENAI_ERROR}},
        }
        return
    responses["default"] = {
        "description": "A problem; `code` tells which",
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemReply"}}},
    }


_OPENAI_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
