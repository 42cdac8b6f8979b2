"""Errors in the shape of the provider that a dialect speaks for."""

import json

from aiohttp import web

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.dialects.dialect import ProviderDialect


def error_response(
    dialect: ProviderDialect, status: int, message: str, code: str | None = None
) -> web.Response:
    body = json.dumps(dialect.error_body(status, message, code)).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def refuse(dialect: ProviderDialect, refusal: Refusal) -> web.Response:
    return error_response(dialect, refusal.status, refusal.message, refusal.code)
