"""The bounds of a request in Anthropic's form (docs/adr/0005-what-bounds-an-estimate.md)."""

import inspect
import json
from typing import Any

import pytest
from anthropic.resources.messages import Messages

from authz.decision import Deny, ErrorShape, OutageKind, Reason, error_body
from authz.endpoints.body import Body, parse
from authz.endpoints.demand import IMAGE_TOKENS, LEAST_THOUGHT_TOKENS, WHOLE_CONTEXT_TOKENS
from authz.endpoints.messages import CLIENT_TOOL_TOKENS, CLIENT_TOOLS, KNOWN_MEMBERS, MESSAGES
from authz.endpoints.table import PREFIXES, error_shape
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand, Extra
from tests.splices import apply_edits

PICTURE = "A" * 200_000
CLIENT_OPTIONS = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "betas"}
# Stored things of the provider's, a price that is not listed, and one for another API.
REFUSED_MEMBERS = {"container", "diagnostics", "inference_geo", "user_profile_id", "workspace_id"}


def read(members: dict[str, Any]) -> Body:
    body = parse(json.dumps(members).encode())
    assert isinstance(body, Body)
    return body


def bound(members: dict[str, Any], is_online: bool = False) -> Demand | Deny:
    return MESSAGES.bound(read(members), is_online)


def demand(members: dict[str, Any], is_online: bool = False) -> Demand:
    found = bound(members, is_online)
    assert isinstance(found, Demand), found
    return found


def with_blocks(*blocks: object) -> dict[str, Any]:
    return {"max_tokens": 9, "messages": [{"role": "user", "content": list(blocks)}]}


def image(**source: object) -> dict[str, Any]:
    return {"type": "image", "source": source}


def document(**source: object) -> dict[str, Any]:
    return {"type": "document", "source": source}


def claude_code() -> dict[str, Any]:
    """A request as the coding agent sends it."""
    cached = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": "anthropic/claude-sonnet-4.5",
        "max_tokens": 32_000,
        "stream": True,
        "temperature": 1,
        "metadata": {"user_id": "user_1_account__session_2"},
        "system": [{"type": "text", "text": "You are an agent.", **cached}] * 2,
        "tools": [
            {"name": f"t{n}", "description": "d" * 900, "input_schema": {"type": "object"}}
            for n in range(20)
        ],
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Run the tests", **cached}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "c2ln"},
                    {"type": "tool_use", "id": "toolu_1", "name": "t1", "input": {"a": "b"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": False,
                        "content": [
                            {"type": "text", "text": "done"},
                            image(type="base64", media_type="image/png", data=PICTURE),
                        ],
                    },
                    document(type="text", media_type="text/plain", data="A page."),
                ],
            },
        ],
    }


def test_a_coding_agents_request_is_bounded_by_its_bytes_its_images_and_its_limits() -> None:
    members = claude_code()
    found = demand(members)
    text_bytes = read(members).size_bytes - len(PICTURE)
    assert found.prompt_tokens == text_bytes + PROMPT_OVERHEAD_TOKENS + IMAGE_TOKENS
    assert (found.images, found.completion_tokens) == (1, 32_000)
    assert (found.extra_completion_tokens, found.bounds_thought) == (31_999, True)
    assert found.extras == frozenset()


def test_members_of_anthropics_client_are_known() -> None:
    names = set(inspect.signature(Messages.create).parameters) - CLIENT_OPTIONS
    assert names - KNOWN_MEMBERS <= REFUSED_MEMBERS


@pytest.mark.parametrize(
    ("members", "tokens", "is_bounded"),
    [
        ({}, 0, False),
        ({"thinking": {"type": "disabled"}}, 0, False),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, LEAST_THOUGHT_TOKENS, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 5_000}}, 5_000, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, LEAST_THOUGHT_TOKENS, True),
        ({"thinking": {"type": "adaptive", "budget_tokens": 1}}, LEAST_THOUGHT_TOKENS, False),
        ({"output_config": {"effort": "low"}}, LEAST_THOUGHT_TOKENS, False),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, 0, False),
    ],
)
def test_thinking_comes_on_top(members: dict[str, Any], tokens: int, is_bounded: bool) -> None:
    found = demand(members)
    assert (found.extra_completion_tokens, found.bounds_thought) == (tokens, is_bounded)


def test_a_request_without_a_limit_gets_one() -> None:
    assert demand({"messages": []}).completion_tokens is None
    body = read({"messages": []})
    raw = body.text.encode()
    edited = json.loads(apply_edits(raw, MESSAGES.edits(body, 50, None, None, None)))
    assert edited == {"max_tokens": 50, "messages": []}


def test_a_limit_is_written_under_the_name_that_is_read() -> None:
    body = read({"max_completion_tokens": None, "messages": []})
    edits = MESSAGES.edits(body, 50, None, None, None)
    assert json.loads(apply_edits(body.text.encode(), edits))["max_tokens"] == 50


@pytest.mark.parametrize("kind", sorted(CLIENT_TOOLS))
def test_tools_that_the_client_runs_have_instructions(kind: str) -> None:
    members: dict[str, Any] = {"max_tokens": 9, "tools": [{"type": kind, "name": "it"}]}
    size = read(members).size_bytes
    assert demand(members).prompt_tokens == size + PROMPT_OVERHEAD_TOKENS + CLIENT_TOOL_TOKENS


@pytest.mark.parametrize(
    "blocks",
    [
        [document(type="text", data="x"), {"type": "text", "text": "x", "citations": []}],
        [document(type="content", content=[{"type": "text", "text": "x"}])],
        [{"type": "search_result", "source": "s", "title": "t", "content": []}],
        [{"type": "tool_result", "tool_use_id": "1", "content": "text"}],
        [{"type": "tool_result", "tool_use_id": "1"}],
    ],
)
def test_text_is_bounded_by_its_bytes(blocks: list[Any]) -> None:
    members = with_blocks(*blocks)
    assert demand(members).prompt_tokens == read(members).size_bytes + PROMPT_OVERHEAD_TOKENS


def test_the_marks_of_citations_have_no_bound_but_the_context() -> None:
    cited = {**document(type="text", data="x"), "citations": {"enabled": True}}
    assert demand(with_blocks(cited)).prompt_tokens == WHOLE_CONTEXT_TOKENS
    plain = {**cited, "citations": {"enabled": False}}
    assert demand(with_blocks(plain)).prompt_tokens < WHOLE_CONTEXT_TOKENS


def test_a_reference_stands_for_a_whole_tool() -> None:
    named = {"type": "tool_result", "content": [{"type": "tool_reference", "tool_name": "t"}]}
    assert demand(with_blocks(named)).prompt_tokens == WHOLE_CONTEXT_TOKENS


@pytest.mark.parametrize(
    "source", [{"type": "base64", "data": "JVBERi0="}, {"type": "url", "url": "https://a.example"}]
)
def test_a_document_may_fill_the_context_and_be_read_for_money(source: dict[str, Any]) -> None:
    found = demand(with_blocks(document(**source)))
    assert (found.prompt_tokens, found.work.picos > 0) == (WHOLE_CONTEXT_TOKENS, True)
    free = {"plugins": [{"id": "file-parser", "pdf": {"engine": "native"}}]}
    assert demand(with_blocks(document(**source)) | free).work.picos == 0


def test_images_are_counted_wherever_they_stand() -> None:
    remote = image(type="url", url="https://example.com/a.png")
    members = with_blocks(
        remote,
        {"type": "tool_result", "tool_use_id": "1", "content": [remote]},
        document(type="content", content=[remote]),
    )
    assert demand(members).images == 3


@pytest.mark.parametrize(
    "members",
    [
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"system": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]},
        {"tools": [{"name": "t", "input_schema": {}, "cache_control": {"ttl": "1h"}}]},
        with_blocks({"type": "tool_use", "cache_control": {"ttl": "1h"}}),
        {"messages": [{"role": "user", "content": "x", "cache_control": {"ttl": "1h"}}]},
    ],
)
def test_a_cache_of_an_hour_has_a_price_of_its_own(members: dict[str, Any]) -> None:
    assert demand(members).extras == {Extra.LONG_CACHE}


def test_searches_of_a_plugin_are_those_of_chats() -> None:
    found = demand({"plugins": [{"id": "web", "max_results": 3}]})
    assert (found.web_searches, found.extras) == (3, frozenset({Extra.WEB_SEARCH}))
    assert demand({}, is_online=True).web_searches == 5


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"fallbacks": [{"model": "a/b"}]}, "fallbacks"),
        ({"preset": "p"}, "preset"),
        ({"speed": "fast"}, "speed"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tools": [{"type": "code_execution_20250825", "name": "c"}]}, "tools"),
        ({"tools": [{"type": "computer_toolset_20260801"}]}, "tools"),
        ({"tools": [{"type": ["custom"]}]}, "tools"),
        ({"thinking": {"type": "enabled", "agents": 4}}, "thinking.agents"),
        ({"output_config": {"agents": 4}}, "output_config.agents"),
        (
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management.edits",
        ),
        ({"context_management": {"edits": [], "x": 1}}, "context_management.x"),
        (with_blocks({"type": "web_search_tool_result", "content": []}), "messages.content"),
        (with_blocks({"type": "container_upload", "file_id": "f"}), "messages.content"),
        (with_blocks({"text": "x"}), "messages.content"),
        (
            with_blocks(image(type="url", url="data:application/pdf;base64,AA")),
            "messages.content.source",
        ),
        ({"system": [{"type": "audio"}]}, "system"),
        (with_blocks({"type": "text", "cache_control": {"ttl": "2h"}}), "messages.content"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name(members: dict[str, Any], param: str) -> None:
    refused = bound(members)
    assert isinstance(refused, Deny), refused
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, param)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"Max_Tokens": 5}, "Max_Tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1.5}}, "thinking.budget_tokens"),
        ({"thinking": "high"}, "thinking"),
        ({"output_config": []}, "output_config"),
        ({"context_management": {"edits": 5}}, "context_management"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages"),
        ({"messages": [{"content": 5}]}, "messages.content"),
        ({"messages": [{"Content": "x"}]}, "Content"),
        ({"system": 5}, "system"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"TYPE": "custom"}]}, "TYPE"),
        (with_blocks("x"), "messages.content"),
        (with_blocks({"type": "image"}), "messages.content.source"),
        (with_blocks(image(type="base64")), "messages.content.source"),
        (with_blocks(image(type="base64", data="AA")), "messages.content.source.media_type"),
        (
            with_blocks(image(type="base64", data="AA", media_type="application/pdf")),
            "messages.content.source.media_type",
        ),
        (with_blocks(image(type="base64", data="AA", Media_Type="image/png")), "Media_Type"),
        (with_blocks(image(type="url", url=None)), "messages.content.source.url"),
        # A file at the provider may be another account's.
        (with_blocks(image(type="file", file_id="f")), "messages.content.source"),
        (with_blocks(document(type="file", file_id="f")), "messages.content.source"),
    ],
)
def test_values_of_another_kind_are_refused(members: dict[str, Any], param: str) -> None:
    refused = bound(members)
    assert isinstance(refused, Deny), refused
    assert (refused.reason, refused.param) == (Reason.INVALID_VALUE, param)


def test_errors_have_anthropics_shape_at_its_paths_only() -> None:
    for prefix in PREFIXES:
        assert error_shape(f"{prefix}messages") is ErrorShape.ANTHROPIC
        assert error_shape(f"{prefix}messages?beta=true") is ErrorShape.ANTHROPIC
        assert error_shape(f"{prefix}chat/completions") is not ErrorShape.ANTHROPIC


@pytest.mark.parametrize("kind", [*Reason, *OutageKind], ids=lambda kind: kind.value.code)
def test_every_error_has_a_type_of_anthropics(kind: Reason | OutageKind) -> None:
    found = json.loads(error_body(kind.value, "m", "p", ErrorShape.ANTHROPIC))
    assert found["type"] == "error"
    assert found["error"]["type"] in {
        *("invalid_request_error", "authentication_error", "billing_error", "permission_error"),
        *("not_found_error", "rate_limit_error", "api_error", "overloaded_error"),
        "request_too_large",
    }
    plain = json.loads(error_body(kind.value, "m", "p"))
    assert set(plain) == {"error"}
    assert {**found["error"], "type": plain["error"]["type"]} == plain["error"]
