"""The limits that are written into tools which the provider runs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.decision import Edit
from authz.endpoints.body import Body, parse
from authz.endpoints.edits import edit_body
from authz.endpoints.server_tools import DEFAULT_STEPS, PRICED_ENGINES, read_server_tools
from meter.pricing.prices import PriceCeiling
from tests.splices import apply_edits

CEILING = PriceCeiling(1, 1, 0, None)
WRITTEN = {"engine", "max_results", "max_characters"}


def edited(raw: str, ceiling: PriceCeiling | None = None) -> Any:
    body = parse(raw.encode())
    assert isinstance(body, Body)
    edits: tuple[Edit, ...] = edit_body(body, None, None, ceiling)
    return json.loads(apply_edits(raw.encode(), edits))


@pytest.mark.parametrize(
    ("tool", "written"),
    [
        ('{"type":"web_search"}', {"engine": "exa", "max_results": 5, "max_characters": 4000}),
        (
            '{ "type" : "openrouter:web_search" , "parameters" : { "engine" : "auto" } }',
            {"engine": "exa", "max_results": 5, "max_characters": 4000},
        ),
        (
            '{"parameters":null,"type":"openrouter:web_search"}',
            {"engine": "exa", "max_results": 5, "max_characters": 4000},
        ),
        (
            '{"type":"web_search_preview","search_context_size":"high","engine":"parallel"}',
            {"engine": "parallel", "max_results": 5, "max_characters": 30_000},
        ),
    ],
)
def test_writes_what_a_search_leaves_open(tool: str, written: dict[str, object]) -> None:
    asked = edited(f'{{"tools": [{{"type":"function"}}, {tool}],"x":"ö"}}')
    found = asked["tools"][1]
    configuration = found.get("parameters", found)
    assert {name: configuration[name] for name in WRITTEN} == written
    assert (asked["max_tool_calls"], asked["x"]) == (DEFAULT_STEPS, "ö")
    assert asked["tools"][0] == {"type": "function"}


def test_tools_of_the_client_are_not_edited() -> None:
    body = parse(b'{"tools": [{"type": "function"}]}')
    assert isinstance(body, Body)
    assert edit_body(body, None, None, None) == ()


CONFIGURATIONS = st.fixed_dictionaries(
    {},
    optional={
        "engine": st.sampled_from([None, "auto", *PRICED_ENGINES]),
        "max_results": st.none() | st.integers(1, 25),
        "max_characters": st.none() | st.integers(1, 100_000),
        "search_context_size": st.sampled_from([None, "low", "medium", "high"]),
        "max_uses": st.none() | st.integers(1, 30),
        "allowed_domains": st.just(["example.org", "größe.example"]),
    },
)
TOOLS = st.one_of(
    st.just({"type": "function", "function": {"name": "f"}}),
    st.just({"type": "openrouter:datetime"}),
    st.builds(lambda owned: {"type": "web_search_2025_08_26", **owned}, CONFIGURATIONS),
    st.builds(
        lambda owned: {"type": "openrouter:web_search", "parameters": owned},
        st.none() | CONFIGURATIONS,
    ),
)


@given(
    tools=st.lists(TOOLS, max_size=4),
    steps=st.none() | st.integers(1, 30),
    names_steps=st.booleans(),
    is_spaced=st.booleans(),
    is_first=st.booleans(),
)
def test_an_edited_body_has_the_bound_of_its_hold_and_names_it(
    tools: list[dict[str, Any]],
    steps: int | None,
    names_steps: bool,
    is_spaced: bool,
    is_first: bool,
) -> None:
    members: dict[str, Any] = {"tools": tools}
    if names_steps:
        members = {"max_tool_calls": steps, **members}
    members = {"model": "é", **members} if is_first else {**members, "model": "é"}
    raw = json.dumps(members, ensure_ascii=is_spaced, indent=2 if is_spaced else None)
    after = edited(raw, CEILING)
    bound = read_server_tools(members)
    assert read_server_tools(after) == bound
    after.pop("provider")
    if bound is None:
        assert after == members
        return
    assert after.pop("max_tool_calls") == (steps if names_steps and steps else DEFAULT_STEPS)
    members.pop("max_tool_calls", None)
    for before, tool in zip(members["tools"], after["tools"], strict=True):
        if "search" in tool["type"]:
            owner = tool["parameters"] if tool["type"].startswith("openrouter:") else tool
            assert owner["engine"] in PRICED_ENGINES
            assert owner["max_results"] >= 1
            assert owner["max_characters"] >= 1
            own = (before.get("parameters") or {}) if "openrouter" in tool["type"] else before
            kept = {name: own[name] for name in own if name not in WRITTEN}
            assert kept.items() <= owner.items()
        else:
            assert tool == before
