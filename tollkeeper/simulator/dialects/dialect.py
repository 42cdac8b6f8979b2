"""The traits in which the API of one provider differs from that of another.

All five speak the shape of OpenAI's chat completions. What a dialect does not say is
answered alike for all of them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.catalogue import Model, read_models
from tollkeeper.simulator.pricing import Usage

OPENROUTER_MEMBERS = frozenset(
    {
        "models",
        "plugins",
        "preset",
        "provider",
        "reasoning",
        "route",
        "trace",
        "transforms",
        "usage",
    }
)
"""Members of a request that OpenRouter knows and no other provider does."""


class StreamUsage(StrEnum):
    """The chunks of a stream that carry usage."""

    ALWAYS_LAST = "always_last"
    LAST_IF_ASKED = "last_if_asked"
    EACH_IF_ASKED = "each_if_asked"


class ProviderDialect(ABC):
    """One provider's API. A key is good when it begins with ``key_prefix`` and has more."""

    id: ClassVar[str]
    base_path: ClassVar[str] = "/v1"
    key_prefix: ClassVar[str]
    is_key_required: ClassVar[bool] = True
    endpoints: ClassVar[frozenset[Endpoint]] = frozenset(
        {Endpoint.CHAT_COMPLETIONS, Endpoint.EMBEDDINGS}
    )
    stream_usage: ClassVar[StreamUsage] = StreamUsage.LAST_IF_ASKED
    # What a stream begins with, and the member in the chunks before the one with usage.
    first_events: ClassVar[tuple[bytes, ...]] = ()
    usage_before_last: ClassVar[str] = ',"usage":null'
    # Members beside those of OpenAI: provider, reasoning texts, native finish reasons.
    has_openrouter_members: ClassVar[bool] = False
    zero_usage: ClassVar[str] = '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    lesser_usage: ClassVar[str] = '{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'
    models_max: ClassVar[int] = 1
    is_empty_reply_free: ClassVar[bool] = False

    @abstractmethod
    def upstream_name(self, model: Model) -> str | None:
        """The provider's name of a model of OpenRouter's catalogue; None without one."""

    @abstractmethod
    def to_listed(self, model: Model) -> dict[str, object]:
        """One entry of ``GET /models``."""

    @abstractmethod
    def error_body(self, status: int, message: str, code: str | None) -> object:
        """The JSON body of an error."""

    @abstractmethod
    def make_id(self, at: datetime, random_letters: str) -> str:
        """The id of a generation."""

    def models(self) -> Iterator[Model]:
        """The models on offer, under the provider's own names and prices."""
        for model in read_models("models.csv"):
            name = self.upstream_name(model)
            if name is not None:
                yield replace(
                    model,
                    id=name,
                    # Direct providers count an image as tokens of the prompt.
                    prices=replace(model.prices, image_picos=0),
                )

    def list_models(self, models: Iterable[Model]) -> object:
        """The body of ``GET /models``."""
        return {"object": "list", "data": [self.to_listed(model) for model in models]}

    def catalogue_name(self, name: str) -> str:
        """The name in the catalogue of a model that a request calls ``name``."""
        return name

    def find_key(self, headers: Mapping[str, str], path: str) -> str:
        """The key of a request, or an empty string. Raises Refusal for headers that are wrong."""
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        return key if scheme.lower() == "bearer" else ""

    def missing_key(self) -> Refusal:
        return Refusal(401, "No API key was provided", "invalid_api_key")

    @abstractmethod
    def wrong_key(self, key: str) -> Refusal:
        """The answer to a key that is not accepted."""

    def check_members(self, asked: Mapping[str, Any], model: Model) -> None:
        """Raises Refusal for a member of the request that the provider refuses."""
        return

    def unknown_model(self, name: str) -> Refusal:
        return Refusal(404, f"The model `{name}` does not exist", "model_not_found")

    def usage_text(self, usage: Usage, costs_picos: tuple[int, int], behaviour: Behaviour) -> str:
        """The ``usage`` object as JSON text. Only OpenRouter names a cost.

        ``costs_picos`` has the whole cost, and the part of it that the reply has.
        """
        return json.dumps(self.to_usage(usage), separators=(",", ":"))

    def to_usage(self, usage: Usage) -> dict[str, object]:
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }

    def headers(self, generation_id: str) -> dict[str, str]:
        """Headers of a reply beside its content type."""
        return {}
