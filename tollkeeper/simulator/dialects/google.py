"""Google's Gemini by its OpenAI-shaped layer, under ``/v1beta/openai``.

Thoughts are billed as output and are not among ``completion_tokens``: the output is
``total_tokens`` less ``prompt_tokens``. A stream that asks for usage has it in every chunk,
counted from the beginning. A wrong key is answered with 400, and errors come in a list.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.catalogue import Model
from tollkeeper.simulator.dialects.dialect import OPENROUTER_MEMBERS, ProviderDialect, StreamUsage
from tollkeeper.simulator.pricing import Usage

LISTED_PREFIX = "models/"
INVALID_KEY = "API_KEY_INVALID"
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class GoogleDialect(ProviderDialect):
    """Models by their bare names, which the listing prefixes with ``models/``."""

    id: ClassVar[str] = "google"
    base_path: ClassVar[str] = "/v1beta/openai"
    key_prefix: ClassVar[str] = "AIza"
    stream_usage: ClassVar[StreamUsage] = StreamUsage.EACH_IF_ASKED

    def models(self) -> Iterator[Model]:
        for model in super().models():
            # The layer does not tell what was read from the cache.
            prices = replace(model.prices, cache_read_picos=None, cache_write_picos=None)
            yield replace(model, prices=prices)

    def upstream_name(self, model: Model) -> str | None:
        vendor, _, name = model.id.partition("/")
        return (
            name if vendor == "google" and name.startswith("gemini") and ":" not in name else None
        )

    def catalogue_name(self, name: str) -> str:
        return name.removeprefix(LISTED_PREFIX)

    def to_listed(self, model: Model) -> dict[str, object]:
        return {"id": f"{LISTED_PREFIX}{model.id}", "object": "model", "owned_by": "google"}

    def error_body(self, status: int, message: str, code: str | None) -> object:
        error: dict[str, object] = {
            "code": status,
            "message": message,
            "status": _STATUSES.get(status, "UNKNOWN"),
        }
        if code == INVALID_KEY:
            error["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": INVALID_KEY,
                    "domain": "googleapis.com",
                    "metadata": {"service": "generativelanguage.googleapis.com"},
                }
            ]
        return [{"error": error}]

    def make_id(self, at: datetime, random_letters: str) -> str:
        return random_letters

    def missing_key(self) -> Refusal:
        return Refusal(400, "Missing or invalid Authorization header.")

    def wrong_key(self, key: str) -> Refusal:
        return Refusal(400, "API key not valid. Please pass a valid API key.", INVALID_KEY)

    def unknown_model(self, name: str) -> Refusal:
        return Refusal(404, f"models/{name} is not found for API version v1main.")

    def check_members(self, asked: Mapping[str, Any], model: Model) -> None:
        unknown = sorted(OPENROUTER_MEMBERS & asked.keys())
        if unknown:
            raise Refusal(400, f'Invalid JSON payload received. Unknown name "{unknown[0]}"')

    def to_usage(self, usage: Usage) -> dict[str, object]:
        spoken_tokens = usage.completion_tokens - usage.reasoning_tokens
        return {**super().to_usage(usage), "completion_tokens": spoken_tokens}
