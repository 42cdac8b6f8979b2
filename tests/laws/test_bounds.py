"""No reply that the provider may give costs more than the hold of its request (R6).

Requests are bounded, edited, and answered by the simulator, whose prices and limits are those of
OpenRouter's documentation. A greedy answer takes as much of everything as its request allows.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.decide import refuse_unpriced
from authz.decision import Deny
from authz.endpoints.body import Body, parse
from authz.endpoints.chat import CHAT_COMPLETIONS
from authz.endpoints.endpoint import Endpoint as BoundEndpoint
from authz.endpoints.measured.images import IMAGES
from authz.endpoints.messages import MESSAGES
from authz.endpoints.responses.endpoint import RESPONSES
from meter.pricing.prices import Model, Price, PriceTier, estimate, price_ceiling
from meter.providers.openrouter.catalogue import read_catalogue
from tests.splices import apply_edits
from tollkeeper.simulator.answers.answering import Answerer
from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.asking import Endpoint, read_ask
from tollkeeper.simulator.catalogue import Catalogue
from tollkeeper.simulator.dialects.openrouter import OpenRouterDialect

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRICES = [name for name in Price.__slots__ if name.endswith("_picos")]
DIALECT = OpenRouterDialect()
SIMULATED = list(DIALECT.models())
ANSWERER = Answerer(
    DIALECT, Catalogue(SIMULATED, DIALECT.catalogue_name), Vocabulary(0), lambda: NOW
)
ASKED = (
    *("openai/gpt-4o-mini", "openai/gpt-4.1", "anthropic/claude-sonnet-4.5", "openai/gpt-4"),
    *("perplexity/sonar-pro", "google/gemini-2.5-flash-image", "openai/o3"),
    # Nothing but the provider's own work costs anything.
    "openai/gpt-oss-20b:free",
)
PICTURE = "data:image/png;base64," + "A" * 5_000
DOCUMENT = "data:application/pdf;base64," + "A" * 9_000


def offered_models() -> dict[str, Model]:
    """Return the models as the meter reads the simulator's own listing."""
    read = read_catalogue(json.dumps(DIALECT.list_models(SIMULATED)).encode())
    found = {}
    for one in read.models:
        picos = {name: getattr(one, name) for name in PRICES}
        tiers = []
        for tier in one.tiers:
            own = {name: value for name, value in tier.items() if name in PRICES}
            price = Price(1, one.id, NOW, **{**picos, **own})
            tiers.append(PriceTier(tier["min_prompt_tokens"], price))
        price = Price(1, one.id, NOW, **picos, tiers=tuple(tiers))
        found[one.id] = Model(
            one.id,
            one.name,
            one.context_length,
            one.max_completion_tokens,
            price,
            one.unasked_searches,
        )
    return found


OFFERED = offered_models()
TEXT = {"type": "text", "text": "Good day. " * 30}
PARTS = st.sampled_from(
    [
        {"type": "text", "text": "größe"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
)
DOCUMENTS = st.sampled_from(
    [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": DOCUMENT}},
        {"type": "file", "file": {"file_data": "https://example.org/a.pdf"}},
    ]
)
SEARCHES = st.fixed_dictionaries(
    {"engine": st.sampled_from(["auto", "exa", "exa", "parallel", "perplexity"])},
    optional={
        "mode": st.sampled_from(["instant", "deep", "deep-reasoning"]),
        "max_results": st.sampled_from([1, 5, 10, 11, 25]),
        "max_characters": st.sampled_from([1, 10, 4_000, 100_000]),
        "search_context_size": st.sampled_from(["low", "medium", "high"]),
    },
)
TOOLS = st.one_of(
    st.just({"type": "openrouter:datetime"}),
    st.builds(lambda own: {"type": "web_search_preview", **own}, SEARCHES),
    st.builds(lambda own: {"type": "openrouter:web_search", "parameters": own}, SEARCHES),
)
OWN_TOOL = {"type": "function", "function": {"name": "look"}}
SIZES = st.sampled_from([{}, *({"search_context_size": one} for one in ("low", "medium", "high"))])
# One kind of work at a time, so that the reserve of another one hides no fault.
WORK = st.one_of(
    st.just({}),
    st.builds(
        lambda tool, steps: {"tools": [OWN_TOOL, tool], **steps},
        TOOLS,
        st.sampled_from([{}, *({"max_tool_calls": steps} for steps in (1, 2, 3, 30))]),
    ),
    st.builds(lambda options: {"web_search_options": options}, SIZES),
    st.builds(
        lambda results, engine: {"plugins": [{"id": "web", "max_results": results, **engine}]},
        st.integers(1, 10),
        st.sampled_from([{}, {"engine": "exa", "mode": "deep-reasoning"}, {"engine": "parallel"}]),
    ),
    st.builds(
        lambda engine: {"plugins": [{"id": "file-parser", **engine}]},
        st.sampled_from([{}, {"pdf": {"engine": "native"}}, {"pdf": {"engine": "mistral-ocr"}}]),
    ),
    st.just({"modalities": ["image", "text"]}),
)
BODIES = st.builds(
    lambda model, parts, documents, work, members: {
        "model": model,
        "messages": [{"role": "user", "content": [TEXT, *parts, *documents]}],
        **work,
        **members,
    },
    st.sampled_from(ASKED),
    st.lists(PARTS, max_size=2),
    st.lists(DOCUMENTS, max_size=2) | st.just([]),
    WORK,
    st.fixed_dictionaries(
        {"max_tokens": st.sampled_from([None, 1, 4_000, 4_000])},
        optional={
            "n": st.integers(1, 3),
            "reasoning_effort": st.just("high"),
            "stream": st.booleans(),
        },
    ),
)


def in_items(members: dict[str, Any]) -> dict[str, Any]:
    """Return the body for /responses that asks the same as a chat."""
    asked = {**members, "max_output_tokens": members["max_tokens"]}
    for name in ("max_tokens", "messages", "n", "reasoning_effort"):
        asked.pop(name, None)
    if "reasoning_effort" in members:
        asked["reasoning"] = {"effort": members["reasoning_effort"]}
    if "tools" in members:
        asked["tools"] = [{"type": "function", "name": "look"}, *members["tools"]]
        asked["tools"] = [tool for tool in asked["tools"] if tool is not OWN_TOOL]
    parts = []
    for part in members["messages"][0]["content"]:
        match part["type"]:
            case "text":
                parts.append({**part, "type": "input_text"})
            case "image_url":
                parts.append({"type": "input_image", "image_url": part["image_url"]["url"]})
            case _:
                parts.append({"type": "input_file", **part["file"]})
    output = {"type": "function_call_output", "call_id": "1", "output": parts}
    return {**asked, "input": [{"role": "user", "content": parts}, output]}


def in_blocks(members: dict[str, Any]) -> dict[str, Any]:
    """Return the body for /messages that asks the same as a chat, as far as that can be asked."""
    asked = dict(members)
    for name in ("n", "reasoning_effort", "modalities", "web_search_options", "max_tool_calls"):
        asked.pop(name, None)
    if "reasoning_effort" in members:
        asked["thinking"] = {"type": "enabled", "budget_tokens": 2_000}
    if "tools" in members:
        asked["tools"] = [{"name": "look", "input_schema": {}}]
        asked["tools"].append({"type": "bash_20250124", "name": "bash"})
    blocks: list[dict[str, Any]] = []
    for part in members["messages"][0]["content"]:
        kind = part["type"]
        if kind == "text":
            blocks.append({**part, "cache_control": {"type": "ephemeral"}})
            continue
        url = part[kind]["url"] if kind == "image_url" else part[kind]["file_data"]
        source: dict[str, Any] = {"type": "url", "url": url}
        if url.startswith("data:"):
            media_type, _, encoded = url.removeprefix("data:").partition(";base64,")
            source = {"type": "base64", "media_type": media_type, "data": encoded}
        blocks.append({"type": "image" if kind == "image_url" else "document", "source": source})
    result = {"type": "tool_result", "tool_use_id": "1", "content": blocks}
    messages = [{"role": "user", "content": blocks}, {"role": "user", "content": [result]}]
    return {**asked, "messages": messages}


def in_pictures(members: dict[str, Any]) -> dict[str, Any]:
    """Return a body for /images of about as much as a chat asks."""
    references = [
        {"type": "image_url", "image_url": part["image_url"]}
        for part in members["messages"][0]["content"]
        if part["type"] == "image_url"
    ]
    sizes = {1: {}, 2: {"size": "1024x1536"}, 3: {"resolution": "4K"}}
    number = members.get("n", 1)
    return {
        "model": members["model"],
        "prompt": "A red panda. " * 20,
        "n": number,
        "stream": members.get("stream", False),
        "input_references": references,
        **sizes[number],
    }


# The endpoint of each shape, and the function that gives a chat this shape.
SHAPES: dict[Endpoint, tuple[BoundEndpoint, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    Endpoint.CHAT_COMPLETIONS: (CHAT_COMPLETIONS, dict),
    Endpoint.RESPONSES: (RESPONSES, in_items),
    Endpoint.MESSAGES: (MESSAGES, in_blocks),
    Endpoint.IMAGES: (IMAGES, in_pictures),
}


def asking(model: str, **members: Any) -> dict[str, Any]:
    """Return a body of one text, with these members."""
    return {"model": model, "messages": [{"role": "user", "content": [TEXT]}], **members}


@example(
    members=asking("google/gemini-2.5-flash-image", n=3),
    is_greedy=True,
    share=0,
    shape=Endpoint.IMAGES,
)
@example(
    members=asking(
        "openai/gpt-4o-mini",
        max_tokens=4_000,
        tools=[{"type": "openrouter:datetime"}],
        max_tool_calls=30,
    ),
    is_greedy=True,
    share=0,
    shape=Endpoint.CHAT_COMPLETIONS,
)
@example(
    members=asking(
        "openai/gpt-oss-20b:free",
        max_tokens=1,
        tools=[{"type": "web_search", "mode": "deep-reasoning", "max_results": 25}],
    ),
    is_greedy=True,
    share=0,
    shape=Endpoint.CHAT_COMPLETIONS,
)
@settings(max_examples=400)
@given(
    members=BODIES,
    is_greedy=st.booleans(),
    share=st.floats(0, 1),
    shape=st.sampled_from([*SHAPES]),
)
def test_no_answer_costs_more_than_its_hold(
    members: dict[str, Any], is_greedy: bool, share: float, shape: Endpoint
) -> None:
    endpoint, to_shape = SHAPES[shape]
    members = to_shape(members)
    raw = json.dumps(members, ensure_ascii=False).encode()
    body, model = parse(raw), OFFERED[members["model"]]
    assert isinstance(body, Body)
    demand = endpoint.bound(body, False)
    assert not isinstance(demand, Deny), demand
    if refuse_unpriced(demand, [model], False):
        return
    bound = estimate(demand, [model], 0, floor_tokens=16)
    # Where the body names no limit, one that the account affords is written.
    granted = bound.min_tokens + int(share * (bound.max_tokens - bound.min_tokens))
    limit = granted if demand.completion_tokens is None else None
    edits = endpoint.edits(body, limit, None, price_ceiling(demand, [model]), None)
    ask = read_ask(shape, apply_edits(raw, edits))
    try:
        answer = ANSWERER.answer(ask, members["model"], Behaviour(is_greedy=is_greedy))
    except Refusal:
        # The model cannot see pictures, for example: a refusal costs nothing.
        return
    assert answer.cost_picos <= bound.fixed_picos + granted * bound.per_token_picos
