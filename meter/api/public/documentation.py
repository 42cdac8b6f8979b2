"""The page that shows the OpenAPI document.

The page and its scripts are files beside this process. No browser loads anything from another
server, and the content security policy enforces that.
"""

from importlib import resources
from typing import Final

from fastapi import APIRouter, Response

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tollkeeper API</title>
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
    """Return the page."""
    headers = {"Content-Security-Policy": _CONTENT_SECURITY_POLICY}
    return Response(_PAGE, headers=headers, media_type="text/html")


@router.get("/start.js")
async def show_start() -> Response:
    """Return the few lines that start the page."""
    return Response(_START, media_type="text/javascript")


@router.get("/swagger-ui-bundle.js")
async def show_bundle() -> Response:
    """Return Swagger UI."""
    return _asset("swagger-ui-bundle.js")


@router.get("/swagger-ui.css")
async def show_style() -> Response:
    """Return the style of Swagger UI."""
    return _asset("swagger-ui.css")


def _asset(name: str) -> Response:
    file = resources.files("fastapi_offline") / "static" / name
    headers = {"Cache-Control": f"public, max-age={_ASSET_MAX_AGE_S}"}
    return Response(file.read_bytes(), headers=headers, media_type=_ASSETS[name])
