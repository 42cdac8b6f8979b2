"""Anthropic, by its own Messages and by its OpenAI-shaped layer: no prompt cache, one choice.

``GET /v1/models`` and ``POST /v1/messages`` are Anthropic's own: ``x-api-key`` needs
``anthropic-version`` there. The list has dated names; requests may leave out the date, and replies
give it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.catalogue import Model
from tollkeeper.simulator.dialects.dialect import ProviderDialect

DATED_NAMES = {
    "anthropic/claude-opus-4.1": "claude-opus-4-1-20250805",
    "anthropic/claude-opus-4": "claude-opus-4-20250514",
    "anthropic/claude-sonnet-4.5": "claude-sonnet-4-5-20250929",
    "anthropic/claude-sonnet-4": "claude-sonnet-4-20250514",
    "anthropic/claude-haiku-4.5": "claude-haiku-4-5-20251001",
    "anthropic/claude-3.7-sonnet": "claude-3-7-sonnet-20250219",
    "anthropic/claude-3.5-haiku": "claude-3-5-haiku-20241022",
    "anthropic/claude-3-haiku": "claude-3-haiku-20240307",
}
RETIRED_NAME = "claude-3-5-sonnet-20241022"
"""A model that is listed still, and no longer answers."""
_DATE = re.compile(r"-\d{8}$")
_BY_ALIAS = {_DATE.sub("", name): name for name in DATED_NAMES.values()}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicDialect(ProviderDialect):
    """Usage without details; thoughts only where a request's own member asks for them."""

    id: ClassVar[str] = "anthropic"
    key_prefix: ClassVar[str] = "sk-ant-"
    endpoints: ClassVar[frozenset[Endpoint]] = frozenset(
        {Endpoint.CHAT_COMPLETIONS, Endpoint.MESSAGES}
    )

    def models(self) -> Iterator[Model]:
        for model in super().models():
            prices = replace(model.prices, cache_read_picos=None, cache_write_picos=None)
            yield replace(model, features=model.features - {"reasoning"}, prices=prices)

    def upstream_name(self, model: Model) -> str | None:
        return DATED_NAMES.get(model.id)

    def catalogue_name(self, name: str) -> str:
        return _BY_ALIAS.get(name, name)

    def list_models(self, models: Iterable[Model]) -> object:
        listed = [self.to_listed(model) for model in models]
        listed.append({**listed[-1], **_named(RETIRED_NAME), "lifecycle": "retired"})
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
        return {"data": listed, "has_more": False, **ends}

    def to_listed(self, model: Model) -> dict[str, object]:
        return {
            **_named(model.id),
            "type": "model",
            "lifecycle": "active",
            "deprecated_at": None,
            "retires_at": None,
            "capabilities": None,
            "max_input_tokens": model.context_length,
            "max_tokens": model.max_completion_tokens,
        }

    def error_body(self, status: int, message: str, code: str | None) -> object:
        default = "invalid_request_error" if status < 500 else "api_error"
        kind = _ERROR_TYPES.get(status, default)
        return {"error": {"code": kind, "message": message, "type": kind, "param": None}}

    def make_id(self, at: datetime, random_letters: str) -> str:
        return f"msg_01{random_letters}"

    def headers(self, generation_id: str) -> dict[str, str]:
        return {"request-id": f"req_01{generation_id.removeprefix('msg_01')}"}

    def find_key(self, headers: Mapping[str, str], path: str) -> str:
        if path.endswith("/chat/completions"):
            return super().find_key(headers, path)
        if headers.get("x-api-key") and not headers.get("anthropic-version"):
            raise Refusal(400, "anthropic-version: header is required")
        # Newer clients send their key as a bearer token at Anthropic's own paths too.
        is_message = path.endswith("/messages")
        bearer = super().find_key(headers, path) if is_message else ""
        return headers.get("x-api-key", "") or bearer

    def wrong_key(self, key: str) -> Refusal:
        return Refusal(401, "invalid x-api-key")

    def check_members(self, asked: Mapping[str, Any], model: Model) -> None:
        if asked.get("n") not in (None, 1):
            raise Refusal(400, "n must be 1")


def _named(dated_name: str) -> dict[str, object]:
    year, month, day = dated_name[-8:-4], dated_name[-4:-2], dated_name[-2:]
    return {
        "id": dated_name,
        "display_name": _DATE.sub("", dated_name).replace("-", " ").title(),
        "created_at": f"{year}-{month}-{day}T00:00:00Z",
    }
