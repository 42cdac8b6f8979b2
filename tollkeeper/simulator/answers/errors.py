"""Errors in the shape of the provider that a dialect speaks for."""

import json
from typing import Final

from aiohttp import web

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.dialects.dialect import ProviderDialect

MESSAGES_PATH: Final = "/messages"
"""The end of the path whose errors are Anthropic's, whatever provider serves it."""
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def anthropic_error(status: int, message: str) -> dict[str, object]:
    """Return the body of an error in the shape of Anthropic's own API."""
    default = "invalid_request_error" if status < 500 else "api_error"
    error = {"type": _ANTHROPIC_TYPES.get(status, default), "message": message}
    return {"type": "error", "error": error, "request_id": None}


def error_body(
    dialect: ProviderDialect, path: str, status: int, message: str, code: str | None = None
) -> bytes:
    """Return the JSON of an error at a path."""
    if path.endswith(MESSAGES_PATH):
        return json.dumps(anthropic_error(status, message)).encode()
    return json.dumps(dialect.error_body(status, message, code)).encode()


def error_response(
    dialect: ProviderDialect, path: str, status: int, message: str, code: str | None = None
) -> web.Response:
    body = error_body(dialect, path, status, message, code)
    return web.Response(status=status, body=body, content_type="application/json")


def refuse(dialect: ProviderDialect, path: str, refusal: Refusal) -> web.Response:
    return error_response(dialect, path, refusal.status, refusal.message, refusal.code)
