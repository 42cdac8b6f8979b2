"""A server of open models such as vLLM or Ollama: no prices, any key or none."""

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.asking import USUAL_ENDPOINTS, Endpoint
from tollkeeper.simulator.catalogue import Model, read_models
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.pricing import Usage

CREATED_UNIX_S = 1_750_000_000


class OpenAICompatibleDialect(ProviderDialect):
    """Its listing has no prices; its bill goes by ``compatible_models.csv``."""

    id: ClassVar[str] = "openai_compatible"
    key_prefix: ClassVar[str] = ""
    is_key_required: ClassVar[bool] = False
    endpoints: ClassVar[frozenset[Endpoint]] = USUAL_ENDPOINTS

    def models(self) -> Iterator[Model]:
        return read_models("compatible_models.csv")

    def upstream_name(self, model: Model) -> str | None:
        return model.id

    def to_listed(self, model: Model) -> dict[str, object]:
        return {
            "id": model.id,
            "object": "model",
            "created": CREATED_UNIX_S,
            "owned_by": "vllm",
            "root": model.id,
            "parent": None,
            "max_model_len": model.context_length,
        }

    def error_body(self, status: int, message: str, code: str | None) -> object:
        if status == 401:
            return {"error": "Unauthorized"}
        kind = {404: "NotFoundError", 400: "BadRequestError"}.get(status, "InternalServerError")
        return {"error": {"message": message, "type": kind, "param": None, "code": status}}

    def make_id(self, at: datetime, random_letters: str) -> str:
        return f"chatcmpl-{random_letters}"

    def wrong_key(self, key: str) -> Refusal:
        return Refusal(401, "Unauthorized")

    def to_usage(self, usage: Usage) -> dict[str, object]:
        return {**super().to_usage(usage), "prompt_tokens_details": None}
