"""OpenAI: usage in a stream only when asked for, never a cost; unknown members are refused."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.asking import USUAL_ENDPOINTS, Endpoint
from tollkeeper.simulator.catalogue import Model
from tollkeeper.simulator.dialects.dialect import OPENROUTER_MEMBERS, ProviderDialect
from tollkeeper.simulator.pricing import Usage

CREATED_UNIX_S = 1_715_367_049
SHOWN_KEY_START = 8
SHOWN_KEY_END = 4
_ERROR_TYPES = {429: "requests", 500: "server_error", 502: "server_error", 503: "server_error"}


class OpenAIDialect(ProviderDialect):
    """Models by their bare names; a rejected key is shown by its ends, as OpenAI does."""

    id: ClassVar[str] = "openai"
    key_prefix: ClassVar[str] = "sk-"
    endpoints: ClassVar[frozenset[Endpoint]] = USUAL_ENDPOINTS | {Endpoint.RESPONSES}

    def upstream_name(self, model: Model) -> str | None:
        vendor, _, name = model.id.partition("/")
        # Open weights are listed under OpenAI's name, and served by others.
        return name if vendor == "openai" and not name.startswith("gpt-oss") else None

    def to_listed(self, model: Model) -> dict[str, object]:
        return {
            "id": model.id,
            "object": "model",
            "created": CREATED_UNIX_S,
            "owned_by": "system",
        }

    def error_body(self, status: int, message: str, code: str | None) -> object:
        kind = _ERROR_TYPES.get(status, "invalid_request_error")
        if status == 429 and code is None:
            code = "rate_limit_exceeded"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def make_id(self, at: datetime, random_letters: str) -> str:
        return f"chatcmpl-{random_letters}"

    def headers(self, generation_id: str) -> dict[str, str]:
        return {"x-request-id": f"req_{generation_id.rpartition('-')[2]}"}

    def wrong_key(self, key: str) -> Refusal:
        shown = f"{key[:SHOWN_KEY_START]}{'*' * 12}{key[-SHOWN_KEY_END:]}"
        return Refusal(401, f"Incorrect API key provided: {shown}.", "invalid_api_key")

    def check_members(self, asked: Mapping[str, Any], model: Model) -> None:
        unknown = sorted(OPENROUTER_MEMBERS & asked.keys())
        if "input" in asked and "messages" not in asked:
            # What chats take from OpenRouter only, /responses have themselves.
            unknown = [name for name in unknown if name != "reasoning"]
        if unknown:
            raise Refusal(400, f"Unrecognized request argument supplied: {unknown[0]}")
        if model.has_reasoning and asked.get("max_tokens") is not None:
            raise Refusal(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model."
                " Use 'max_completion_tokens' instead.",
                "unsupported_parameter",
            )

    def to_usage(self, usage: Usage) -> dict[str, object]:
        return {
            **super().to_usage(usage),
            "prompt_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "audio_tokens": usage.audio_tokens,
            },
            "completion_tokens_details": {
                "reasoning_tokens": usage.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
