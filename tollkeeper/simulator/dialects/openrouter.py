"""OpenRouter: names the cost of each generation, and knows every model."""

import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import ClassVar

from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.catalogue import Model, read_models
from tollkeeper.simulator.dialects.dialect import ProviderDialect, StreamUsage
from tollkeeper.simulator.pricing import Usage, to_usd

FIRST_CREATED_UNIX_S = 1_690_000_000
CREATED_SPAN_SECONDS = 70_000_000
IGNORED_SUFFIXES = (":nitro", ":floor", ":online")
"""Suffixes that change how a model is served, not which one."""

_PARAMETERS = (
    "frequency_penalty",
    "max_tokens",
    "presence_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "top_p",
)
_TOOL_PARAMETERS = ("tools", "tool_choice")
_REASONING_PARAMETERS = ("include_reasoning", "reasoning")


class OpenRouterDialect(ProviderDialect):
    """Usage and cost in every reply, errors whose code is the status."""

    id: ClassVar[str] = "openrouter"
    base_path: ClassVar[str] = "/api/v1"
    key_prefix: ClassVar[str] = "sk-or-"
    endpoints: ClassVar[frozenset[Endpoint]] = frozenset(Endpoint)
    stream_usage: ClassVar[StreamUsage] = StreamUsage.ALWAYS_LAST
    first_events: ClassVar[tuple[bytes, ...]] = (b": OPENROUTER PROCESSING\n\n",)
    usage_before_last: ClassVar[str] = ""
    has_openrouter_members: ClassVar[bool] = True
    models_max: ClassVar[int] = 100
    is_empty_reply_free: ClassVar[bool] = True
    zero_usage: ClassVar[str] = (
        '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"cost":0}'
    )
    lesser_usage: ClassVar[str] = (
        '{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.000000000001}'
    )

    def models(self) -> Iterator[Model]:
        return read_models("models.csv")

    def upstream_name(self, model: Model) -> str | None:
        return model.id

    def list_models(self, models: Iterable[Model]) -> object:
        listed = [self.to_listed(model) for model in models]
        return {"data": listed, "links": {"next": None}, "total_count": len(listed)}

    def catalogue_name(self, name: str) -> str:
        for suffix in IGNORED_SUFFIXES:
            name = name.removesuffix(suffix)
        return name

    def make_id(self, at: datetime, random_letters: str) -> str:
        return f"gen-{int(at.timestamp())}-{random_letters}"

    def missing_key(self) -> Refusal:
        return Refusal(401, "No auth credentials found")

    def wrong_key(self, key: str) -> Refusal:
        return Refusal(401, "User not found.")

    def unknown_model(self, name: str) -> Refusal:
        return Refusal(400, f"{name} is not a valid model ID")

    def error_body(self, status: int, message: str, code: str | None) -> object:
        return {"error": {"message": message, "code": status}}

    def headers(self, generation_id: str) -> dict[str, str]:
        return {"X-Generation-Id": generation_id}

    def usage_text(self, usage: Usage, costs_picos: tuple[int, int], behaviour: Behaviour) -> str:
        # The cost goes in as text: a float on the way would not be the bill's number.
        whole, reply = (0, 0) if behaviour.zero_cost else costs_picos
        cost = to_usd(whole)
        if behaviour.wrong_cost is not None:
            cost = behaviour.wrong_cost
        named = {"negative": f"-{cost}", "text": f'"{cost}"', "null": "null"}
        named_cost = cost if behaviour.cost_form is None else named.get(behaviour.cost_form)
        cost_member = "" if named_cost is None else f',"cost":{named_cost}'
        return (
            f'{{"prompt_tokens":{usage.prompt_tokens}'
            f',"completion_tokens":{usage.completion_tokens}'
            f',"total_tokens":{usage.total_tokens}'
            f'{cost_member},"is_byok":false'
            f',"prompt_tokens_details":{{"cached_tokens":{usage.cached_tokens}'
            f',"cache_write_tokens":{usage.cache_write_tokens}'
            f',"audio_tokens":{usage.audio_tokens}}}'
            f',"cost_details":{{"upstream_inference_cost":{cost}'
            f',"upstream_inference_prompt_cost":{to_usd(whole - reply)}'
            f',"upstream_inference_completions_cost":{to_usd(reply)}}}'
            f',"completion_tokens_details":{{"reasoning_tokens":{usage.reasoning_tokens}'
            f',"image_tokens":{usage.picture_tokens}}}'
            f',"server_tool_use":{{"web_search_requests":{usage.search_count}}}}}'
        )

    def to_listed(self, model: Model) -> dict[str, object]:
        vendor, _, slug = model.id.partition("/")
        inputs = ["text", "image"] if model.may_see_images else ["text"]
        if model.kind == "transcription":
            inputs = ["audio"]
        outputs = ["image", "text"] if model.may_draw else [model.replies]
        parameters = ["dimensions", "encoding_format"] if model.is_embedding else []
        if model.endpoint is None:
            tools = _TOOL_PARAMETERS if "tools" in model.features else ()
            reasoning = _REASONING_PARAMETERS if model.has_reasoning else ()
            parameters = sorted([*_PARAMETERS, *tools, *reasoning])
        # The six prices that are always listed, and the cache prices of models that have them.
        listed = {
            "prompt": model.prices.prompt_picos,
            "completion": model.prices.completion_picos,
            "request": model.prices.request_picos,
            "image": model.prices.image_picos,
            "web_search": model.prices.web_search_picos,
            "internal_reasoning": model.prices.internal_reasoning_picos,
            "input_cache_read": model.prices.cache_read_picos,
            "input_cache_write": model.prices.cache_write_picos,
            "image_output": model.prices.image_output_picos,
        }
        overrides = [
            {"min_prompt_tokens": start, "prompt": to_usd(prompt), "completion": to_usd(completion)}
            for start, prompt, completion in model.prices.tiers
        ]
        return {
            "id": model.id,
            "canonical_slug": model.id.removesuffix(":free"),
            "hugging_face_id": "",
            "name": f"{model.display}: {slug.replace('-', ' ').title()}",
            "created": FIRST_CREATED_UNIX_S + zlib.crc32(model.id.encode()) % CREATED_SPAN_SECONDS,
            "description": f"A simulated model in the manner of {vendor}.",
            "context_length": model.context_length,
            "architecture": {
                "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
                "input_modalities": inputs,
                "output_modalities": outputs,
                "tokenizer": model.display,
                "instruct_type": None,
            },
            "pricing": {
                **{name: to_usd(picos) for name, picos in listed.items() if picos is not None},
                **({"overrides": overrides} if overrides else {}),
            },
            "top_provider": {
                "context_length": model.context_length,
                "max_completion_tokens": model.max_completion_tokens,
                "is_moderated": "moderated" in model.features,
            },
            "per_request_limits": None,
            "supported_parameters": parameters,
            "default_parameters": {},
            "supported_voices": None,
            "expiration_date": None,
            "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
        }
