"""The bounds of a request, rule by rule (docs/adr/0005-what-bounds-an-estimate.md)."""

import importlib
import inspect
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.decision import Deny, Reason
from authz.endpoints.body import Body, parse
from authz.endpoints.demand import (
    IMAGE_TOKENS,
    KNOWN_MEMBERS,
    MAX_TOKENS_NAMED,
    WHOLE_CONTEXT_TOKENS,
)
from authz.endpoints.table import ALL
from meter.money import MAX_PICOS, add_markup
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand, Extra, catalogue_cost, estimate
from meter.usage.usage import TokenCounts
from tests.fakes import model

ENDPOINTS = {endpoint.name: endpoint for endpoint in ALL}
# Arguments of OpenAI's client that are no members of the body.
CLIENT_OPTIONS = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
# Members whose price nobody lists: longer caches, and models that moderate.
REFUSED_MEMBERS = {"prompt_cache_options", "moderation"}
PICTURE = "data:image/png;base64," + "A" * 5_000


def bound(
    members: dict[str, Any], endpoint: str = "chat_completions", is_online: bool = False
) -> Demand | Deny:
    body = parse(json.dumps(members).encode())
    assert isinstance(body, Body)
    return ENDPOINTS[endpoint].bound(body, is_online)


def demand(members: dict[str, Any], endpoint: str = "chat_completions") -> Demand:
    found = bound(members, endpoint)
    assert isinstance(found, Demand), found
    return found


def with_parts(*parts: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def image(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def document(file: object) -> dict[str, Any]:
    return {"type": "file", "file": file}


def searching(parameters: object) -> dict[str, Any]:
    return {"tools": [{"type": "openrouter:web_search", "parameters": parameters}]}


def test_a_prompt_has_at_most_as_many_tokens_as_bytes() -> None:
    members = {"messages": [{"role": "user", "content": "größe"}]}
    size = len(json.dumps(members).encode())
    assert demand(members).prompt_tokens == size + PROMPT_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": None, "max_completion_tokens": None}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 7, "max_completion_tokens": 6}, 7),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7),
        ({"max_tokens": MAX_TOKENS_NAMED}, MAX_TOKENS_NAMED),
    ],
)
def test_the_larger_limit_bounds_the_reply(members: dict[str, Any], tokens: int | None) -> None:
    assert demand(members).completion_tokens == tokens


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n", "best_of"])
@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, 1.5, "5", [], {}, 10**9])
def test_counts_are_positive_integers(name: str, value: object) -> None:
    refused = bound({name: value})
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.param) == (Reason.INVALID_VALUE, name)


@pytest.mark.parametrize("value", [1, "x", False, [], {}])
@pytest.mark.parametrize("name", ["fetch_urls", "web_search", "Temperature", "größe", ""])
def test_members_that_are_not_known_are_refused_by_name(name: str, value: object) -> None:
    refused = bound({name: value})
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, name)
    assert isinstance(bound({name: None}), Demand)


def test_members_of_reasoning_that_are_not_known_are_refused_by_name() -> None:
    refused = bound({"reasoning": {"effort": "low", "agents": 4}})
    assert isinstance(refused, Deny)
    assert refused.param == "reasoning.agents"


@pytest.mark.parametrize("resource", ["chat.completions", "completions", "embeddings"])
def test_members_of_openais_client_are_known(resource: str) -> None:
    module = importlib.import_module(f"openai.resources.{resource}")
    call = getattr(module, resource.rpartition(".")[2].capitalize()).create
    names = set(inspect.signature(call).parameters) - CLIENT_OPTIONS
    assert names - KNOWN_MEMBERS <= REFUSED_MEMBERS


def test_custom_tools_run_at_the_client() -> None:
    custom = {"type": "custom", "custom": {"name": "patch", "description": "d" * 5_000}}
    with_tool = demand({"max_tokens": 9, "tools": [custom], "tool_choice": "auto"})
    assert with_tool.prompt_tokens > demand({"max_tokens": 9}).prompt_tokens + 5_000


def test_every_choice_is_billed_and_may_repeat_the_prompt() -> None:
    one, three = demand({"max_tokens": 9, "n": 1}), demand({"max_tokens": 9, "n": 3})
    assert three.choices == 3
    assert three.prompts == 3
    assert three.prompt_tokens == 3 * one.prompt_tokens
    assert demand({"n": 2, "best_of": 5}).choices == 5
    assert demand({"n": None, "best_of": None}).choices == 1


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("text", 1),
        ([], 1),
        ([1, 2, 3], 1),
        (["a", "b"], 2),
        ([[1, 2], [3]], 2),
        ([[1, 2], "b", "c"], 3),
        (None, 1),
    ],
)
def test_each_prompt_counts(value: object, prompts: int) -> None:
    asked = demand({"prompt": value, "n": 2}, "completions")
    assert (asked.choices, asked.prompts) == (2 * prompts, 2 * prompts)
    assert demand({"input": value}, "embeddings").prompts == prompts


def test_embeddings_have_no_reply() -> None:
    asked = demand({"input": "x", "max_tokens": 5, "reasoning": {"max_tokens": 9}}, "embeddings")
    assert asked.completion_tokens == 0
    assert asked.extra_completion_tokens == 0


def test_reasoning_and_rejected_predictions_come_on_top() -> None:
    assert demand({"reasoning": {"max_tokens": 30}}).extra_completion_tokens == 30
    assert demand({"reasoning": {"effort": "high"}}).extra_completion_tokens == 1_024
    assert demand({"reasoning_effort": "high"}).extra_completion_tokens == 1_024
    assert demand({"reasoning": None}).extra_completion_tokens == 0
    members = {"prediction": {"type": "content", "content": "x" * 50}}
    assert demand(members).extra_completion_tokens == len(json.dumps(members))


def test_an_inline_image_counts_as_an_image_and_not_as_text() -> None:
    members = with_parts({"type": "text", "text": "what is this"}, image(PICTURE))
    asked = demand(members)
    text_bytes = len(json.dumps(members)) - len(PICTURE)
    assert asked.images == 1
    assert asked.prompt_tokens == text_bytes + PROMPT_OVERHEAD_TOKENS + IMAGE_TOKENS
    assert demand({**members, "n": 3}).images == 3


@pytest.mark.parametrize(
    "members",
    [
        with_parts(image("https://example.org/a.png"), image(PICTURE)),
        with_parts({"type": "image_url", "image_url": PICTURE}, image(PICTURE)),
        {"messages": [{"role": "assistant", "content": None, "images": [image("x"), image("y")]}]},
        {"messages": [{"content": image("x")}, {"content": [image("y")]}]},
        {"input": [{"content": [image("x"), image("y")]}]},
        {"input": [[image("x"), image("y")]]},
    ],
)
def test_images_are_counted_wherever_they_stand(members: dict[str, Any]) -> None:
    assert demand(members).images == 2


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://example.org/v"}},
        {"type": "image", "source": {}},
        {"type": "tool_result", "content": []},
        {"type": "something new"},
        [image("x")],
    ],
)
def test_what_cannot_be_seen_may_fill_the_context(part: object) -> None:
    assert demand(with_parts(part)).prompt_tokens == WHOLE_CONTEXT_TOKENS


@pytest.mark.parametrize(
    ("members", "extra"),
    [
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, Extra.SPOKEN_REPLY),
        ({"audio": {"voice": "x"}}, Extra.SPOKEN_REPLY),
        ({"modalities": ["image", "text"]}, Extra.PICTURE_REPLY),
        (with_parts({"type": "input_audio", "input_audio": {}}), Extra.SOUND),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, Extra.SOUND),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, Extra.LONG_CACHE),
        (
            with_parts({"type": "text", "text": "", "cache_control": {"ttl": "1h"}}),
            Extra.LONG_CACHE,
        ),
        ({"tools": [{"type": "function", "cache_control": {"ttl": "1h"}}]}, Extra.LONG_CACHE),
        ({"plugins": [{"id": "web"}]}, Extra.WEB_SEARCH),
    ],
)
def test_what_has_a_price_of_its_own_is_named(members: dict[str, Any], extra: Extra) -> None:
    assert demand(members).extras == {extra}


def test_a_sound_may_fill_the_context() -> None:
    asked = demand(with_parts({"type": "input_audio", "input_audio": {"data": "AA"}}))
    assert asked.prompt_tokens == WHOLE_CONTEXT_TOKENS
    assert asked.may_hear


@pytest.mark.parametrize(
    ("plugins", "searches"),
    [
        (None, 0),
        ([], 0),
        ([{"id": "web"}], 5),
        ([{"id": "web", "max_results": 10}], 10),
        ([{"id": "web", "max_results": None}], 5),
        ([{"id": "web", "max_results": 1}, {"id": "web", "max_results": 2}], 3),
        ([{"id": "response-healing"}, {"id": "context-compression", "enabled": True}], 0),
    ],
)
def test_web_results_are_counted_and_may_fill_the_context(plugins: object, searches: int) -> None:
    asked = demand({"plugins": plugins})
    assert asked.web_searches == searches
    assert (asked.prompt_tokens == WHOLE_CONTEXT_TOKENS) == (searches > 0)


def test_a_search_by_an_engine_of_openrouters_costs_the_same_with_every_model() -> None:
    named = demand({"plugins": [{"id": "web", "engine": "exa", "mode": "deep"}]})
    assert (named.web_searches, named.extras) == (0, frozenset())
    assert named.work.picos == 15 * 10**9
    assert named.prompt_tokens == WHOLE_CONTEXT_TOKENS
    # Without a name, the model's provider may search, or the engine.
    unnamed = demand({"plugins": [{"id": "web", "max_results": 1}]})
    assert (unnamed.web_searches, unnamed.work.picos) == (1, 15 * 10**9)


@pytest.mark.parametrize(
    ("options", "weight"),
    [
        ({}, 1),
        ({"search_context_size": "low", "user_location": {"type": "approximate"}}, 1),
        ({"search_context_size": "medium"}, 2),
        ({"search_context_size": "high"}, 3),
    ],
)
def test_options_of_a_search_raise_the_price_of_each(options: object, weight: int) -> None:
    asked = demand({"web_search_options": options, "n": 2})
    assert asked.web_searches == 20
    assert asked.extras == {Extra.WEB_SEARCH}
    assert asked.work.search_weight == weight
    priced = model(web_search_picos=10**9, request_picos=10**9, prompt_picos=0)
    held = [
        estimate(one, [priced], 0, 16).fixed_picos
        for one in (demand({"web_search_options": {}, "n": 2}), asked)
    ]
    assert held[1] == weight * held[0]


def test_a_tool_of_the_provider_has_the_model_read_once_more_for_each_step() -> None:
    members = {"max_tokens": 50, **searching({"max_results": 3, "max_characters": 100})}
    plain = demand({**members, "max_tool_calls": 1, "tools": [{"type": "openrouter:datetime"}]})
    asked = demand({**members, "max_tool_calls": 4, "n": 2})
    assert (asked.choices, asked.prompts, asked.work.calls) == (10, 10, 5)
    assert asked.work.rereads == 2 * (1 + 2 + 3 + 4)
    assert asked.work.picos == 2 * 4 * 15 * 10**9
    assert asked.prompt_tokens > 5 * plain.prompt_tokens + asked.work.rereads * 3 * 400
    assert plain.work.picos == 0
    dearer = demand({**searching({"max_results": 12}), "max_tool_calls": 1})
    assert dearer.work.picos == 17 * 10**9


@pytest.mark.parametrize(
    ("plugin", "picos"),
    [
        (None, 2 * 2 * 10**12),
        ({"id": "file-parser"}, 2 * 2 * 10**12),
        ({"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}, 2 * 2 * 10**12),
        ({"id": "file-parser", "pdf": {"engine": "native"}}, 0),
        ({"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}, 0),
        ({"id": "file-parser", "pdf": {"engine": "pdf-text"}}, 0),
    ],
)
def test_a_document_may_fill_the_context_and_be_read_by_the_page(
    plugin: object, picos: int
) -> None:
    file = document({"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"})
    asked = demand({**with_parts(file, file), **({} if plugin is None else {"plugins": [plugin]})})
    assert asked.prompt_tokens == WHOLE_CONTEXT_TOKENS
    assert (asked.images, asked.work.picos) == (16, picos)


FREE_ENGINE = {"id": "file-parser", "pdf": {"engine": "native"}}
PRICED_ENGINE = {"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}


@pytest.mark.parametrize(
    "plugins",
    [
        [PRICED_ENGINE, FREE_ENGINE],
        [FREE_ENGINE, PRICED_ENGINE],
        [{**FREE_ENGINE, "enabled": False}],
    ],
)
def test_an_engine_that_may_not_be_the_one_that_reads_lowers_nothing(
    plugins: list[dict[str, Any]],
) -> None:
    file = document({"file_data": "data:application/pdf;base64,AA"})
    assert demand({**with_parts(file), "plugins": plugins}).work.picos == 2 * 10**12


def test_what_was_read_in_a_document_is_measured_when_it_comes_back() -> None:
    read = {"hash": "1", "content": [{"type": "text", "text": "a"}, image(PICTURE)]}
    message = {"role": "assistant", "content": "x", "annotations": [{"type": "file", "file": read}]}
    assert demand({"messages": [message]}).images == 1


def test_the_online_suffix_is_the_web_plugin() -> None:
    asked = bound({}, is_online=True)
    assert isinstance(asked, Demand)
    assert asked.web_searches == 5
    asked = bound({"plugins": [{"id": "web", "max_results": 8}], "n": 2}, is_online=True)
    assert isinstance(asked, Demand)
    assert asked.web_searches == 16


@pytest.mark.parametrize(
    ("members", "param"),
    [
        (with_parts({"text": "no type"}), "messages.content"),
        (with_parts({"type": ["text"]}), "messages.content"),
        (with_parts(image("data:application/pdf;base64,AA")), "messages.content.image_url"),
        (with_parts(image("DATA:text/html,AA")), "messages.content.image_url"),
        ({"modalities": ["text", "video"]}, "modalities"),
        ({"modalities": {"image": 1}}, "modalities"),
        ({"preset": "mine"}, "preset"),
        ({"search_parameters": {}}, "search_parameters"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": ["auto"]}, "service_tier"),
        ({"tools": [{"type": "function"}, {"type": "openrouter:fusion"}]}, "tools"),
        ({"tools": [{"type": "openrouter:web_fetch"}]}, "tools"),
        ({"tools": [{"type": ["web_search"]}]}, "tools"),
        (searching({"engine": "native"}), "tools"),
        (searching({"engine": "firecrawl"}), "tools"),
        (searching({"depth": 3}), "tools"),
        ({"tools": [{"type": "web_search", "parameters": {}}]}, "tools"),
        ({**searching({}), "stop_server_tools_when": []}, "stop_server_tools_when"),
        ({"web_search_options": {"depth": 3}}, "web_search_options.depth"),
        (with_parts(document({"file_id": "f"})), "messages.content.file.file_id"),
        (with_parts(document({"file_data": "x", "pages": 3})), "messages.content.file.pages"),
        (with_parts({"type": "input_file", "file_data": "x"}), "messages.content"),
        ({"plugins": [{"id": "file-parser", "pdf": {"engine": "other"}}]}, "plugins"),
        ({"plugins": [{"id": "file-parser", "max_pages": 5}]}, "plugins"),
        ({"plugins": [{"id": "web", "engine": "firecrawl"}]}, "plugins"),
        ({"tools": ["function"]}, "tools"),
        ({"plugins": [{"id": "web", "surprise": 1}]}, "plugins"),
        ({"plugins": [{}]}, "plugins"),
        ({"plugins": [{"id": ["web"]}]}, "plugins"),
        ({"cache_control": {"type": "ephemeral", "ttl": "24h"}}, "cache_control"),
        (
            with_parts({"type": "text", "text": "", "cache_control": {"ttl": "24h"}}),
            "messages.content",
        ),
        ({"tools": [{"type": "function", "cache_control": {"ttl": "24h"}}]}, "tools"),
    ],
)
def test_refuses_what_cannot_be_bounded(members: dict[str, Any], param: str) -> None:
    refused = bound(members)
    assert isinstance(refused, Deny), refused
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, param)
    assert param in refused.message
    # It says what to do next.
    assert re.search(r"\b(Leave|Set|Send|Give|Put) ", refused.message), refused.message


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"plugins": {}}, "plugins"),
        ({"plugins": ["web"]}, "plugins"),
        ({"plugins": [{"id": "web", "max_results": 11}]}, "plugins.max_results"),
        ({"web_search_options": []}, "web_search_options"),
        (
            {"web_search_options": {"search_context_size": "huge"}},
            "web_search_options.search_context_size",
        ),
        ({**searching({}), "max_tool_calls": 31}, "max_tool_calls"),
        (searching({"max_results": 26}), "tools.max_results"),
        (searching({"max_characters": 10**6}), "tools.max_characters"),
        (searching({"search_context_size": "huge"}), "tools.search_context_size"),
        (searching({"Max_Results": 1}), "Max_Results"),
        (searching(["exa"]), "tools.parameters"),
        (searching([]), "tools.parameters"),
        (searching(False), "tools.parameters"),
        (searching(""), "tools.parameters"),
        (with_parts({"type": "file", "file": {}}), "messages.content.file.file_data"),
        (with_parts({"type": "file", "file": "x"}), "messages.content.file"),
        ({"plugins": [{"id": "file-parser", "pdf": "native"}]}, "plugins.pdf"),
        ({"tools": {}}, "tools"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"max_tokens": 1.0}}, "reasoning.max_tokens"),
        (with_parts(image(None)), "messages.content.image_url.url"),
        ({"provider": ["a"]}, "provider"),
        ({"Provider": {}}, "Provider"),
        ({"provider": {"Max_Price": {}}}, "Max_Price"),
        ({"provider": {"max_price": 1}}, "provider.max_price"),
        ({"provider": {"max_price": {"token": 1}}}, "provider.max_price"),
        ({"provider": {"max_price": {"prompt": -1}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"prompt": "1e3"}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"prompt": True}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"image": [1]}}}, "provider.max_price.image"),
        ({"provider": {"max_price": {"request": 10**400}}}, "provider.max_price.request"),
        ({"Max_Tokens": 5}, "Max_Tokens"),
        ({"max_token\u017f": 5}, "max_token\u017f"),  # A long s, in lower case an s.
        ({"reasoning": {"MAX_TOKENS": 5}}, "MAX_TOKENS"),
        (with_parts({"type": "text", "Type": "file"}), "Type"),
    ],
)
def test_refuses_values_that_two_readers_might_read_differently(
    members: dict[str, Any], param: str
) -> None:
    refused = bound(members)
    assert isinstance(refused, Deny), refused
    assert (refused.reason, refused.param) == (Reason.INVALID_VALUE, param)


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 0, "top_p": 0.5, "seed": 1, "logit_bias": {"50256": -100}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"response_format": {"type": "json_schema", "json_schema": {"ID": 1, "id": 2}}},
        {"service_tier": "flex", "modalities": ["text"], "stream": True},
        {"modalities": None, "tools": None, "service_tier": None, "preset": None, "audio": None},
        {"provider": {"order": ["x"], "max_price": {"prompt": 0.5, "image": None}}},
        {"provider": {"max_price": {"completion": "2"}}},
        {"provider": None},
        {"provider": {"order": ["x"]}, "transforms": ["middle-out"], "user": "u"},
        with_parts({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
        {"messages": "not a list"},
        {"messages": [1, None, {"content": None}, {"content": "x"}, {"content": ["x", 1]}]},
    ],
)
def test_everything_else_passes(members: dict[str, Any]) -> None:
    assert isinstance(bound(members), Demand)


@given(
    text=st.text(max_size=60),
    limit=st.integers(1, 5_000),
    choices=st.integers(1, 5),
    reasoning=st.none() | st.integers(1, 2_000),
    images=st.integers(0, 3),
    used=st.tuples(*[st.floats(0, 1)] * 4),
    markup=st.integers(0, 10_000),
    picos=st.tuples(*[st.integers(0, 10**8)] * 4),
)
def test_an_estimate_is_never_below_the_charge(
    text: str,
    limit: int,
    choices: int,
    reasoning: int | None,
    images: int,
    used: tuple[float, ...],
    markup: int,
    picos: tuple[int, ...],
) -> None:
    members = with_parts({"type": "text", "text": text}, *[image(PICTURE)] * images)
    members |= {"max_tokens": limit, "n": choices}
    if reasoning:
        members["reasoning"] = {"max_tokens": reasoning}
    asked = demand(members)
    prompt, reply, cached, picture = picos
    offered = model(
        context=30_000,
        prompt_picos=prompt,
        completion_picos=reply,
        cache_read_picos=cached,
        image_picos=picture,
    )
    held = estimate(asked, [offered], markup, floor_tokens=16)
    amount = held.fixed_picos + held.per_token_picos * held.max_tokens

    real_prompt = min(len(text.encode()) + images * IMAGE_TOKENS, offered.context_length)
    completion = int(used[1] * choices * (limit + (reasoning or 0)))
    tokens = TokenCounts(
        prompt=int(used[0] * real_prompt),
        completion=completion,
        cached=int(used[2] * used[0] * real_prompt),
        reasoning=int(used[3] * completion),
    )
    cost = catalogue_cost(tokens, offered.price, images * offered.price.image_picos)
    assert add_markup(cost, markup) <= amount


def test_no_part_of_an_estimate_outgrows_the_books() -> None:
    asked = Demand(prompt_tokens=1, completion_tokens=1, images=10**9)
    bound = estimate(asked, [model(image_picos=10**11)], 0, floor_tokens=16)
    assert bound.flat_cost_picos == bound.fixed_picos == MAX_PICOS


# Values that rules look for, and others; true, 1.0 and null are nothing of the kind asked for.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 3, 200, 1.0, "", "text", "1h", "web", "auto", "image", [], {}),
    *(["text", "audio"], ["image"], [1, 2, 3], ["a", "b"], [[1], [2]], {"max_tokens": 5}),
    *({"max_price": {"prompt": "1.5"}}, {"max_price": {"Prompt": 1}}, {"ttl": "1h"}, {"Ttl": 1}),
    *([{"id": "web"}], [{"id": "web", "max_results": 3}], [{"type": "function"}]),
    *([{"type": "function", "cache_control": {"ttl": "1h"}}], [{"type": "web_search"}]),
]
NAMES = [*sorted(KNOWN_MEMBERS), "Max_Tokens", "MESSAGES", "Provider", "colour", "PRICE"]
PARTS: list[Any] = [
    *("text", 7, None, ["nested"], {"type": "text", "text": "hi"}, {"type": "TEXT"}, {"Type": "a"}),
    *({"type": "text", "cache_control": {"ttl": "1h"}}, {"type": "input_audio"}, {"type": "file"}),
    *(image("https://example.com/a.png"), image(PICTURE), image(5), {"type": "video_url"}),
]
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("user"),
        "content": st.one_of(st.just("Good day"), st.none(), st.lists(st.sampled_from(PARTS))),
        "name": st.just("Ann"),
        "tool_calls": st.just([{"id": "1"}]),
        "images": st.lists(st.sampled_from(PARTS), max_size=2),
        "audio": st.sampled_from([None, {"id": "a"}]),
        "cache_control": st.sampled_from([None, {"ttl": "1h"}, {"ttl": "2h"}]),
        "Content": st.just("hidden"),
        "colour": st.just("red"),
    },
)
BODIES = st.builds(
    lambda messages, members: {"messages": messages, **members},
    st.lists(st.one_of(MESSAGES, st.sampled_from(["text", None, 3])), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=4),
)


@given(
    members=BODIES,
    endpoint=st.sampled_from([endpoint.name for endpoint in ALL]),
    is_online=st.booleans(),
)
def test_an_ordinary_body_is_bounded_as_every_rule_bounds_it(
    members: dict[str, Any], endpoint: str, is_online: bool
) -> None:
    """Without the names that let rules be passed over, every rule is asked."""
    quick = bound(members, endpoint, is_online)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("demand", "prompt"):
            patch.setattr(f"authz.endpoints.{module}._ORDINARY_MEMBERS", frozenset())
        assert bound(members, endpoint, is_online) == quick
