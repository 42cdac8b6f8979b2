"""Refusals of the simulator, in OpenRouter's error shape."""

import json

from aiohttp import web


class Refusal(Exception):
    """A request that is answered with a status and billed nothing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def to_response(self) -> web.Response:
        return error_response(self.status, self.message)


def error_response(status: int, message: str) -> web.Response:
    """``{"error": {"message", "code"}}``, the code being the status, as OpenRouter does."""
    error = {"error": {"message": message, "code": status}}
    return web.Response(
        status=status, body=json.dumps(error).encode(), content_type="application/json"
    )
