"""The bounds and edits of bodies for /responses, rule by rule."""

import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.resources.responses import Responses

from authz.decision import Deny, Reason
from authz.endpoints.body import Body, parse
from authz.endpoints.demand import IMAGE_TOKENS, WHOLE_CONTEXT_TOKENS
from authz.endpoints.responses.endpoint import KNOWN_MEMBERS, RESPONSES
from authz.endpoints.responses.tools import BUILT_IN_TOOL_TOKENS
from authz.endpoints.rewriting import Rewrite
from authz.endpoints.server_tools import DEFAULT_STEPS, SEARCH_PICOS
from meter.money import add_markup
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand, Extra, estimate
from tests.fakes import model
from tests.splices import apply_edits
from tollkeeper.simulator.answers.answering import WEB_RESULT_PICOS
from tollkeeper.simulator.asking import Endpoint, read_ask
from tollkeeper.simulator.pricing import Prices, Usage, cost_picos

CLIENT_OPTIONS = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
# Members whose cost nobody documents, or that compact the conversation at a price of its own.
REFUSED_MEMBERS = {
    *("access_programs", "background_options", "context_management", "image", "moderation"),
}
PICTURE = "data:image/png;base64," + "A" * 5_000
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}


def bound(members: dict[str, Any], is_online: bool = False) -> Demand | Deny:
    body = parse(json.dumps(members).encode())
    assert isinstance(body, Body)
    return RESPONSES.bound(body, is_online)


def demand(members: dict[str, Any]) -> Demand:
    found = bound(members)
    assert isinstance(found, Demand), found
    return found


def said(*parts: object) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


def picture(url: object) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def test_members_of_openais_client_are_known() -> None:
    names = set(inspect.signature(Responses.create).parameters) - CLIENT_OPTIONS
    assert names - KNOWN_MEMBERS == REFUSED_MEMBERS


@pytest.mark.parametrize(
    "given",
    [
        "größe",
        [{"role": "user", "content": "Hello"}],
        [{"type": "message", "role": "assistant", "content": [{"type": "output_text"}]}],
        [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA" * 99}],
        [{"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}],
        [{"type": "function_call_output", "call_id": "1", "output": "{}"}],
        [{"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "a"}]}],
        [{"type": "local_shell_call_output", "id": "1", "output": "{}"}],
        [],
    ],
)
def test_text_has_at_most_as_many_tokens_as_bytes(given: object) -> None:
    members = {"input": given, "instructions": "Be brief", "max_output_tokens": 9}
    size = len(json.dumps(members).encode())
    asked = demand(members)
    assert asked.prompt_tokens == size + PROMPT_OVERHEAD_TOKENS
    assert (asked.completion_tokens, asked.choices, asked.prompts) == (9, 1, 1)


def test_an_image_counts_as_an_image_and_not_as_text() -> None:
    members = said({"type": "input_text", "text": "?"}, picture(PICTURE))
    text = len(json.dumps(members)) - len(PICTURE)
    asked = demand(members)
    assert asked.prompt_tokens == text + PROMPT_OVERHEAD_TOKENS + IMAGE_TOKENS
    assert asked.images == 1
    output = {"type": "function_call_output", "output": [picture("https://example.com/a.png")]}
    assert demand({"input": [output]}).images == 1


@pytest.mark.parametrize(
    "item",
    [
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "image_generation_call", "id": "1", "result": "AAAA", "status": "completed"},
        {"type": "web_search_call", "id": "1", "status": "completed"},
        {"role": "user", "content": [{"type": "input_video", "video_url": "https://x/y"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "https://x/y"}]},
        {"role": "user", "content": [{"type": "input_file", "file_data": "data:a/b,x"}]},
    ],
)
def test_what_cannot_be_seen_may_fill_the_context(item: dict[str, Any]) -> None:
    assert demand({"input": [item]}).prompt_tokens == WHOLE_CONTEXT_TOKENS


@pytest.mark.parametrize(
    ("members", "extra"),
    [
        (said({"type": "input_audio", "input_audio": {}}), Extra.SOUND),
        ({"modalities": ["text", "image"]}, Extra.PICTURE_REPLY),
        ({"plugins": [{"id": "web"}]}, Extra.WEB_SEARCH),
        ({"cache_control": {"ttl": "1h"}}, Extra.LONG_CACHE),
        (said({"type": "input_text", "cache_control": {"ttl": "1h"}}), Extra.LONG_CACHE),
        ({"tools": [{**FUNCTION, "cache_control": {"ttl": "1h"}}]}, Extra.LONG_CACHE),
    ],
)
def test_what_has_a_price_of_its_own_is_named(members: dict[str, Any], extra: Extra) -> None:
    assert demand(members).extras == {extra}


def test_tools_that_the_model_knows_by_name_add_to_the_prompt() -> None:
    tools: list[dict[str, Any]] = [
        FUNCTION,
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "n", "description": "d", "tools": [FUNCTION]},
        {"type": "local_shell"},
        {"type": "apply_patch"},
        {"type": "shell", "environment": {"type": "local"}},
    ]
    members = {"tools": tools, "input": [{"type": "additional_tools", "tools": tools[3:]}]}
    text = len(json.dumps(members)) + PROMPT_OVERHEAD_TOKENS
    assert demand(members).prompt_tokens == text + 6 * BUILT_IN_TOOL_TOKENS


def test_a_search_of_openrouters_is_bounded_by_what_is_written_into_it() -> None:
    members = {"tools": [FUNCTION, {"type": "web_search", "external_web_access": False}]}
    asked = demand(members)
    assert asked.work.calls == asked.choices == DEFAULT_STEPS + 1
    assert asked.work.picos == DEFAULT_STEPS * SEARCH_PICOS
    raw = json.dumps(members).encode()
    body = parse(raw)
    assert isinstance(body, Body)
    sent = json.loads(apply_edits(raw, RESPONSES.edits(body, None, None, None, None)))
    assert sent["max_tool_calls"] == DEFAULT_STEPS
    assert sent["tools"][1]["engine"] == "exa"


def test_thinking_comes_on_top() -> None:
    assert demand({"reasoning": {"effort": "high", "summary": "auto"}}).extra_completion_tokens
    asked = demand({"reasoning": {"max_tokens": 30}, "max_output_tokens": 7})
    assert (asked.completion_tokens, asked.extra_completion_tokens) == (7, 30)
    assert asked.bounds_thought
    assert demand({"reasoning": None}).extra_completion_tokens == 0


@pytest.mark.parametrize(
    ("members", "param"),
    [
        *(({"tools": [{"type": kind}]}, "tools") for kind in ("mcp", "code_interpreter", "shell")),
        ({"tools": [{"type": "web_search", "engine": "native"}]}, "tools"),
        ({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, "tools"),
        ({"tools": [{"type": "tool_search"}]}, "tools"),
        ({"tools": [{}]}, "tools"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}, "tools.tools"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]}, "input.tools"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]}, "tools.tools"),
        ({"input": [{"type": "compaction_trigger"}]}, "input"),
        ({"input": [{"type": "computer_call_output", "output": {}}]}, "input"),
        ({"input": [{"type": 5}]}, "input"),
        (said({"type": "input_file", "file_id": "f"}), "input.content.file_id"),
        (said({"type": "computer_screenshot"}), "input.content"),
        (said({"text": "no type"}), "input.content"),
        (said(picture("data:application/pdf;base64,AA")), "input.content.image_url"),
        ({"preset": "p"}, "preset"),
        ({"plugins": [{"id": "fusion"}]}, "plugins"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"agents": 4}}, "reasoning.agents"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options.ttl"),
        ({"modalities": ["video"]}, "modalities"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"stop_server_tools_when": []}, "stop_server_tools_when"),
        ({"n": 2}, "n"),
    ],
)
def test_refuses_what_cannot_be_bounded(members: dict[str, Any], param: str) -> None:
    refused = bound(members)
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, param)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"input": [{"id": "msg_1"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": ["text"]}, "input"),
        ({"input": [{"role": "user", "content": {}}]}, "input.content"),
        (said("text"), "input.content"),
        (said(picture(None)), "input.content.image_url"),
        (said({"type": "input_image", "file_id": "f"}), "input.content.file_id"),
        ({"instructions": [{"role": "user"}]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": "high"}, "reasoning"),
        ({"tools": {}}, "tools"),
        ({"tools": ["text"]}, "tools"),
        ({"Input": "x"}, "Input"),
        ({"STORE": False}, "STORE"),
        ({"input": [{"Type": "compaction", "role": "user"}]}, "Type"),
        (said({"type": "input_text", "Type": "input_file"}), "Type"),
    ],
)
def test_refuses_what_has_no_meaning_here(members: dict[str, Any], param: str) -> None:
    refused = bound(members)
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.param) == (Reason.INVALID_VALUE, param)


def test_what_openais_agents_send_passes() -> None:
    members = {
        **{"input": "Hi", "store": False, "background": False, "previous_response_id": None},
        **{"include": ["reasoning.encrypted_content"], "parallel_tool_calls": True},
        **{"tools": [FUNCTION], "tool_choice": "auto", "text": {"verbosity": "low"}},
        **{"reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "auto"},
        **{"prompt_cache_key": "k", "client_metadata": {"a": "b"}, "stream": True},
    }
    assert isinstance(bound(members), Demand)


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        ('{"a":1}', '{"max_output_tokens":7,"store":false,"a":1}'),
        ("{}", '{"max_output_tokens":7,"store":false}'),
        ('{"max_output_tokens":null,"a":1}', '{"store":false,"max_output_tokens":7,"a":1}'),
        ('{"store": null}', '{"max_output_tokens":7,"store": false}'),
        ('{"store": false}', '{"max_output_tokens":7,"store": false}'),
    ],
)
def test_writes_the_limit_and_that_nothing_is_kept(raw: str, edited: str) -> None:
    body = parse(raw.encode())
    assert isinstance(body, Body)
    assert apply_edits(raw.encode(), RESPONSES.edits(body, 7, None, None, None)) == edited.encode()


def test_a_body_for_openai_gets_its_name_of_the_model() -> None:
    body = parse(b'{"model":"openai/gpt-5","stream":true,"store":false}')
    assert isinstance(body, Body)
    edits = RESPONSES.edits(body, None, None, None, Rewrite(model="gpt-5"))
    sent = apply_edits(b'{"model":"openai/gpt-5","stream":true,"store":false}', edits)
    assert sent == b'{"model":"gpt-5","stream":true,"store":false}'


@given(
    text=st.text(max_size=60),
    items=st.integers(1, 4),
    images=st.integers(0, 3),
    tools=st.integers(0, 3),
    limit=st.integers(1, 5_000),
    reasoning=st.none() | st.integers(1, 2_000),
    searches=st.integers(0, 3),
    shares=st.tuples(*[st.floats(0, 1)] * 4),
    markup=st.integers(0, 10_000),
    picos=st.tuples(*[st.integers(0, 10**8)] * 7),
)
def test_no_reply_of_the_simulator_costs_more_than_the_hold(
    text: str,
    items: int,
    images: int,
    tools: int,
    limit: int,
    reasoning: int | None,
    searches: int,
    shares: tuple[float, ...],
    markup: int,
    picos: tuple[int, ...],
) -> None:
    content = [{"type": "input_text", "text": text}, *[picture(PICTURE)] * images]
    members: dict[str, Any] = {
        "model": "m",
        "instructions": text,
        "input": [{"role": "user", "content": content}] * items,
        "max_output_tokens": limit,
        "tools": [{**FUNCTION, "description": text}] * tools,
    }
    if reasoning:
        members["reasoning"] = {"max_tokens": reasoning}
    if searches:
        members["plugins"] = [{"id": "web", "max_results": searches}]
    prompt, completion, request, image, thought, cached, written = picos
    prices = Prices(prompt, completion, request, image, 0, thought, cached, written)
    offered = model(
        context=2_000_000,
        prompt_picos=prompt,
        completion_picos=completion,
        request_picos=request,
        image_picos=image,
        reasoning_picos=thought,
        cache_read_picos=cached,
        cache_write_picos=written,
        web_search_picos=WEB_RESULT_PICOS,
    )
    held = estimate(demand(members), [offered], markup, floor_tokens=16)

    ask = read_ask(Endpoint.RESPONSES, json.dumps(members).encode())
    assert ask.completion_limit_tokens == limit
    spoken = limit + (reasoning or 0)
    cached_tokens = int(shares[0] * ask.prompt_tokens)
    used = Usage(
        prompt_tokens=ask.prompt_tokens,
        completion_tokens=int(shares[1] * spoken),
        cached_tokens=cached_tokens,
        cache_write_tokens=int(shares[2] * (ask.prompt_tokens - cached_tokens)),
        reasoning_tokens=int(shares[3] * int(shares[1] * spoken)),
        image_count=ask.prompt.image_count,
    )
    assert (ask.prompt.image_count, ask.search_results) == (images * items, searches)
    cost = cost_picos(prices, used) + ask.search_results * WEB_RESULT_PICOS
    assert add_markup(cost, markup) <= held.fixed_picos + held.per_token_picos * held.max_tokens
