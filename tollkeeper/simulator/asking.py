"""Reads the members of a request body that shape the answer and its cost.

Tokens are counted by one fixed rule, a quarter of the text's bytes and some per message,
never more than the body has bytes, images aside. Every other member is ignored, as
OpenRouter passes on what it does not know. A dialect refuses some of ``Ask.members``.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.answers.tools import Tool, ToolCall, ToolMode, choose_call
from tollkeeper.simulator.blocks import chat_from_blocks
from tollkeeper.simulator.items import chat_from_items
from tollkeeper.simulator.measuring import (
    Measure,
    measure_search,
    measure_sound,
    measure_speech,
    read_members,
    read_object,
)
from tollkeeper.simulator.reports.trace import Trace, read_trace

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
IMAGE_TOKENS_MIN = 85
IMAGE_TOKENS_PER_TILE = 170
IMAGE_TILES_MAX = 8
AUDIO_BYTES_PER_TOKEN = 640
CHOICES_MAX = 128
SEARCH_RESULTS_DEFAULT = 5

Json = dict[str, Any]


class Endpoint(StrEnum):
    """The kinds of inference, named as everywhere else."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    IMAGES = "images"
    RERANK = "rerank"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"


USUAL_ENDPOINTS = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})
"""The endpoints of every server that speaks as OpenAI does."""
SPEAKING = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES})
"""The endpoints that answer a conversation, and may call tools."""
MEASURED = frozenset({Endpoint.RERANK, Endpoint.SPEECH, Endpoint.TRANSCRIPTIONS})
"""The endpoints that are billed by other units than tokens (``measuring.py``)."""
WITHOUT_COMPLETION = MEASURED | {Endpoint.EMBEDDINGS}
"""The endpoints whose replies are no completions."""


@dataclass(slots=True)
class Prompt:
    """Counts of the parts of a prompt, added up while the prompt is read."""

    text_bytes: int = 0
    token_ids: int = 0
    messages: int = 0
    image_count: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    has_cache_control: bool = False

    def add_text(self, text: object) -> None:
        if isinstance(text, str):
            self.text_bytes += (
                len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            )

    def tokens(self, body_bytes: int) -> int:
        counted = -(-self.text_bytes // BYTES_PER_TOKEN)
        counted += self.messages * TOKENS_PER_MESSAGE + self.token_ids + self.audio_tokens
        return min(counted, body_bytes) + self.image_tokens


@dataclass(frozen=True, slots=True)
class Ask:
    """The members of one inference request that matter to the answer."""

    endpoint: Endpoint
    model_names: tuple[str, ...]
    is_stream: bool
    choice_count: int
    completion_limit_tokens: int | None
    prompt: Prompt
    prompt_tokens: int
    search_results: int
    may_reason: bool
    digest: int
    tool_call: ToolCall | None = None
    json_schema: Json | None = None
    inputs: tuple[bytes, ...] = ()
    dimensions: int | None = None
    is_base64: bool = field(default=False)
    trace: Trace = field(default_factory=Trace)
    max_price_usd: Mapping[str, float] = field(default_factory=dict)
    wants_usage: bool = False
    members: Mapping[str, Any] = field(default_factory=dict)
    measure: Measure = field(default_factory=Measure)


def read_measured(endpoint: Endpoint, body: bytes, content_type: str) -> Ask:
    """Read a body that is billed by other units than tokens; raises Refusal(400)."""
    asked = read_members(body, content_type)
    model, prompt_tokens = asked.get("model"), 0
    if not isinstance(model, str) or not model:
        raise Refusal(400, "No models provided")
    if endpoint is Endpoint.RERANK:
        measure, prompt_tokens = measure_search(asked)
    elif endpoint is Endpoint.SPEECH:
        measure = measure_speech(asked)
    else:
        measure = measure_sound(asked)
    return Ask(
        endpoint=endpoint,
        model_names=(model,),
        is_stream=False,
        choice_count=1,
        completion_limit_tokens=None,
        prompt=Prompt(),
        prompt_tokens=prompt_tokens,
        search_results=0,
        may_reason=False,
        digest=zlib.crc32(body),
        trace=read_trace(asked.get("trace")),
        max_price_usd=_max_price(asked.get("provider")),
        members=asked,
        measure=measure,
    )


def read_ask(endpoint: Endpoint, body: bytes) -> Ask:
    """Read a body; raises Refusal(400) for a body that OpenRouter would refuse too."""
    asked = read_object(body)
    prompt = Prompt()
    inputs: tuple[bytes, ...] = ()
    members = asked
    if endpoint is Endpoint.RESPONSES:
        asked = chat_from_items(asked)
    elif endpoint is Endpoint.MESSAGES:
        asked = chat_from_blocks(asked)
    if endpoint in SPEAKING:
        _read_messages(asked, prompt)
    elif endpoint is Endpoint.IMAGES:
        if not isinstance(asked.get("prompt"), str):
            raise Refusal(400, "prompt is required")
        prompt.add_text(asked["prompt"])
        for reference in asked.get("input_references") or ():
            prompt.image_count += 1
            prompt.image_tokens += _image_tokens(reference.get("image_url"))
    else:
        name = "prompt" if endpoint is Endpoint.COMPLETIONS else "input"
        inputs = tuple(_read_inputs(asked.get(name), prompt))
        if not inputs:
            raise Refusal(400, f'Input required: specify "{name}"')
    # The model asked for, then its fallbacks.
    fallbacks = asked.get("models")
    models = [asked.get("model"), *(fallbacks if isinstance(fallbacks, list) else [])]
    names = tuple(name for name in models if isinstance(name, str) and name)
    if not names:
        raise Refusal(400, "No models provided")
    limits = (_whole(asked, name, 1, 2**31, 0) for name in ("max_completion_tokens", "max_tokens"))
    reasoning = asked.get("reasoning")
    may_reason = asked.get("reasoning_effort") != "none"
    if isinstance(reasoning, dict):
        may_reason = reasoning.get("enabled") is not False and reasoning.get("effort") != "none"
    options = asked.get("stream_options")
    per_prompt = len(inputs) if endpoint is Endpoint.COMPLETIONS else 1
    return Ask(
        endpoint=endpoint,
        model_names=names,
        is_stream=asked.get("stream") is True and endpoint is not Endpoint.EMBEDDINGS,
        choice_count=_whole(asked, "n", 1, CHOICES_MAX, 1) * per_prompt,
        completion_limit_tokens=next(filter(None, limits), None),
        prompt=prompt,
        prompt_tokens=prompt.tokens(len(body)),
        search_results=_search_results(asked, names[0]),
        may_reason=may_reason,
        digest=zlib.crc32(body),
        tool_call=_tool_call(asked) if endpoint in SPEAKING else None,
        json_schema=_json_schema(asked),
        inputs=inputs,
        dimensions=_whole(asked, "dimensions", 8, 1536, 0) or None,
        is_base64=asked.get("encoding_format") == "base64",
        trace=read_trace(asked.get("trace")),
        max_price_usd=_max_price(asked.get("provider")),
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        members=members,
    )


def _read_messages(asked: Json, prompt: Prompt) -> None:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, 'Input required: specify "prompt" or "messages"')
    for message in messages:
        if not isinstance(message, dict):
            raise Refusal(400, "A message is not an object")
        prompt.messages += 1
        prompt.add_text(message.get("name"))
        content = message.get("content")
        if isinstance(content, str):
            prompt.add_text(content)
        for part in content if isinstance(content, list) else []:
            if not isinstance(part, dict):
                continue
            prompt.has_cache_control |= "cache_control" in part
            match part.get("type"):
                case "image_url":
                    prompt.image_count += 1
                    prompt.image_tokens += _image_tokens(part.get("image_url"))
                case "input_audio":
                    sound = part.get("input_audio")
                    sound = sound.get("data") if isinstance(sound, dict) else ""
                    prompt.audio_tokens += 1 + len(str(sound)) // AUDIO_BYTES_PER_TOKEN
                case _:
                    prompt.add_text(part.get("text"))
    for name in ("tools", "functions"):
        if asked.get(name):
            prompt.add_text(json.dumps(asked[name], separators=(",", ":")))


def _image_tokens(image: object) -> int:
    """From 85 to 1,275 tokens, the same for the same picture."""
    if isinstance(image, dict):
        if image.get("detail") == "low":
            return IMAGE_TOKENS_MIN
        image = image.get("url")
    digest = zlib.crc32(str(image).encode("utf-8", "surrogatepass"))
    return IMAGE_TOKENS_MIN + IMAGE_TOKENS_PER_TILE * (digest % IMAGE_TILES_MAX)


def _read_inputs(given: object, prompt: Prompt) -> Iterator[bytes]:
    """One value per text, whether given as a string or as a list of token numbers."""
    if isinstance(given, str):
        prompt.add_text(given)
        yield given.encode("utf-8", "surrogatepass")
    elif isinstance(given, list) and all(isinstance(item, int) for item in given):
        prompt.token_ids += len(given)
        if given:
            yield repr(given).encode()
    elif isinstance(given, list):
        for item in given:
            yield from _read_inputs(item, prompt)


def _search_results(asked: Json, model_name: str) -> int:
    """Results of the paid web plugin, which ``:online`` switches on too."""
    plugins = asked.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else []:
        if isinstance(plugin, dict) and plugin.get("id") == "web":
            if plugin.get("engine") in ("exa", "parallel", "perplexity", "firecrawl"):
                # They cost by the search (``provider_work.py``).
                return 0
            return _whole(plugin, "max_results", 1, 100, SEARCH_RESULTS_DEFAULT)
    return SEARCH_RESULTS_DEFAULT if model_name.endswith(":online") else 0


def _max_price(provider: object) -> dict[str, float]:
    """``provider.max_price``: US dollars for a million tokens, for a request, for an image."""
    limits = provider.get("max_price") if isinstance(provider, dict) else None
    if limits is None:
        return {}
    try:
        return {name: float(limit) for name, limit in limits.items() if limit is not None}
    except (AttributeError, TypeError, ValueError):
        raise Refusal(400, "provider.max_price must be an object of numbers") from None


def _tool_call(asked: Json) -> ToolCall | None:
    """The call that the model makes in its reply, if it makes one."""
    given, choice = asked.get("tools"), asked.get("tool_choice")
    tools = _tools(given)
    if not tools:
        return None
    said, called = "", list[str]()
    for message in reversed(asked["messages"]):
        if message.get("role") == "user":
            said = _text_of(message.get("content"))
            break
        called += [tool.name for tool in _tools(message.get("tool_calls"))]
    modes = [mode for mode in ToolMode if mode == choice]
    forced = _tools([choice])
    return choose_call(
        tools,
        mode=modes[0] if modes else ToolMode.AUTO,
        forced_name=forced[0].name if forced else None,
        said=said,
        called=called,
    )


def _tools(given: object) -> list[Tool]:
    """The tools in a list of tools, of choices of one, or of calls."""
    found: list[Tool] = []
    for one in given if isinstance(given, list) else []:
        if not isinstance(one, dict):
            continue
        is_custom = one.get("type") == "custom"
        told = one.get("custom" if is_custom else "function")
        name = told.get("name") if isinstance(told, dict) else None
        if isinstance(told, dict) and isinstance(name, str):
            parameters = told.get("parameters")
            schema = parameters if isinstance(parameters, dict) else {}
            found.append(Tool(name, schema, is_free_text=is_custom))
    return found


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _json_schema(asked: Json) -> Json | None:
    wanted = asked.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return None
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) else {}


def _whole(asked: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    number = asked.get(name)
    if number is None:
        return default
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise Refusal(400, f"{name} must be a whole number from {low} to {high}")
    return number
