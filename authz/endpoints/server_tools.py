"""Tools that OpenRouter runs for a model, and what they may cost at most.

The model decides how often it calls them. Each call is one step, and after each step the model is
called again with all results so far; `max_tool_calls` limits the steps of a request. What a client
leaves open is written into its body: the number of steps, the engine of a search, and the length
of a result. Searches of the model's own provider are refused here, because nothing limits them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from authz.decision import Edit, echo
from authz.endpoints.advice import ENGINES, advise_on_member
from authz.endpoints.body import Body, byte_offset, item_spans, member_spans, replace_value
from authz.endpoints.members import count, invalid, refuse_misspelt, unbounded
from meter.pricing.prices import Demand
from meter.values import light_value

TOOLS_MEMBER: Final = "tools"
STEPS_MEMBER: Final = "max_tool_calls"
STOP_MEMBER: Final = "stop_server_tools_when"
# OpenRouter takes no more; without the member it would take as many.
MAX_STEPS: Final = 30
DEFAULT_STEPS: Final = 4

SEARCH_TOOL: Final = "openrouter:web_search"
CLOCK_TOOL: Final = "openrouter:datetime"
# Names of OpenAI's, which OpenRouter reads as its own search.
SEARCH_TOOLS: Final = frozenset(
    {
        SEARCH_TOOL,
        *("web_search", "web_search_preview"),
        *("web_search_preview_2025_03_11", "web_search_2025_08_26"),
    }
)
SERVER_TOOLS: Final = SEARCH_TOOLS | {CLOCK_TOOL}

# One search in the dearest mode of the dearest engine, with ten results, and each one beyond.
SEARCH_PICOS: Final = 15_000_000_000
INCLUDED_RESULTS: Final = 10
MORE_RESULT_PICOS: Final = 1_000_000_000
# Engines that OpenRouter pays for by the search; `firecrawl` spends another account's credit.
PRICED_ENGINES: Final = ("exa", "parallel", "perplexity")
DEFAULT_ENGINE: Final = PRICED_ENGINES[0]
MAX_RESULTS: Final = 25
DEFAULT_RESULTS: Final = 5
MAX_RESULT_CHARS: Final = 100_000
DEFAULT_RESULT_CHARS: Final = 4_000
# The characters of a result that a named size of context stands for, with the first engine.
CONTEXT_SIZE_CHARS: Final[Mapping[str, int]] = {"low": 5_000, "medium": 15_000, "high": 30_000}
MAX_RESULTS_IN_SUM: Final = 1_000

# No character has more bytes, and a token has at least one.
_CHAR_TOKENS: Final = 4
# Address, title and markup of a result, and the frame of a call.
_RESULT_FRAME_TOKENS: Final = 2_048
# The description of a tool that OpenRouter adds to the prompt.
_TOOL_TOKENS: Final = 1_024

_ENGINE, _RESULTS, _CHARS = "engine", "max_results", "max_characters"
_CONFIGURATION: Final = frozenset(
    {
        *(_ENGINE, "mode", _RESULTS, "max_uses", "max_total_results", _CHARS),
        *("search_context_size", "user_location", "filters", "allowed_domains"),
        *("excluded_domains", "external_web_access"),
    }
)
_SHORTHAND: Final = _CONFIGURATION | {"type", "cache_control"}
_TOOL: Final = frozenset({"type", "parameters", "cache_control"})


@light_value
class ServerTools:
    """The most that the tools of a request do at the provider.

    `steps` is the number of calls of tools, `step_tokens` the most that the results of one add to
    the prompt, `step_picos` its price. `tool_tokens` describe the tools in the prompt.
    """

    steps: int
    step_tokens: int
    step_picos: int
    tool_tokens: int

    def add_to(self, demand: Demand) -> Demand:
        """Return the demand of a request whose model is called again after each step.

        Call number k reads the prompt, and the results and the replies of k steps before it.
        """
        calls = self.steps + 1
        rereads = demand.choices * self.steps * calls // 2
        prompt_tokens = demand.prompt_tokens + demand.prompts * self.tool_tokens
        work = replace(
            demand.work,
            calls=calls,
            rereads=rereads,
            picos=demand.work.picos + demand.prompts * self.steps * self.step_picos,
        )
        return replace(
            demand,
            prompt_tokens=calls * prompt_tokens + rereads * self.step_tokens,
            choices=calls * demand.choices,
            images=calls * demand.images,
            web_searches=calls * demand.web_searches,
            prompts=calls * demand.prompts,
            work=work,
        )


def is_server_tool(tool: object) -> bool:
    """Return whether OpenRouter runs this tool, at a cost that has a bound."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and kind in SERVER_TOOLS


def asks_server_tools(members: Mapping[str, Any]) -> bool:
    """Return whether a body has tools that OpenRouter runs."""
    tools = members.get(TOOLS_MEMBER)
    return isinstance(tools, list) and any(map(is_server_tool, tools))


def read_server_tools(members: Mapping[str, Any]) -> ServerTools | None:
    """Return the most that a body's tools do at the provider; None where all run at the client.

    Raises Refused for a tool that has no bound.
    """
    if not asks_server_tools(members):
        return None
    if members.get(STOP_MEMBER) is not None:
        raise unbounded(STOP_MEMBER, advise_on_member(STOP_MEMBER))
    steps = count(dict(members), STEPS_MEMBER, MAX_STEPS) or DEFAULT_STEPS
    step_tokens, step_picos, tools = _TOOL_TOKENS, 0, 0
    for tool in members[TOOLS_MEMBER]:
        if not is_server_tool(tool):
            continue
        tools += 1
        results, chars = read_search(tool)
        if not results:
            continue
        result_tokens = chars * _CHAR_TOKENS + _RESULT_FRAME_TOKENS
        step_tokens = max(step_tokens, _TOOL_TOKENS + results * result_tokens)
        picos = SEARCH_PICOS + max(0, results - INCLUDED_RESULTS) * MORE_RESULT_PICOS
        step_picos = max(step_picos, picos)
    return ServerTools(steps, step_tokens, step_picos, tools * _TOOL_TOKENS)


def limit_server_tools(body: Body, spans: Mapping[str, tuple[int, int]]) -> Iterator[Edit | str]:
    """Yield the edits that write the limits which a body leaves open; texts are new members.

    `spans` are the places of the body's members, in characters. The tools must have been read by
    `read_server_tools` before.
    """
    span = spans.get(STEPS_MEMBER)
    if span is None:
        yield f'"{STEPS_MEMBER}":{DEFAULT_STEPS}'
    elif body.members[STEPS_MEMBER] is None:
        yield replace_value(body, *span, str(DEFAULT_STEPS))
    start, end = spans[TOOLS_MEMBER]
    for number, (at, to) in enumerate(item_spans(body.text[start:end])):
        tool = body.members[TOOLS_MEMBER][number]
        if is_server_tool(tool) and tool["type"] != CLOCK_TOOL:
            yield from _limit_search(body, tool, start + at, start + to)


def _refuse_others(owner: Mapping[str, Any], known: frozenset[str], kind: str) -> None:
    for name in owner.keys() - known:
        if owner[name] is not None:
            raise unbounded(
                "tools", f"Leave '{echo(name)}' of the tool '{kind}' out: it is not known here."
            )


def read_search(tool: Mapping[str, Any]) -> tuple[int, int]:
    """Return the most results of a search by a tool, and the characters of one. Raises Refused.

    A tool that does not search has no results.
    """
    kind = tool["type"]
    known = _TOOL if kind in (SEARCH_TOOL, CLOCK_TOOL) else _SHORTHAND
    refuse_misspelt(dict(tool), known)
    _refuse_others(tool, known, kind)
    owner = dict(tool)
    if known is _TOOL:
        # Edits are written into an object: an empty list, or false, is none either.
        owner = {} if tool.get("parameters") is None else tool["parameters"]
        if not isinstance(owner, dict):
            raise invalid("tools.parameters", "an object")
        if kind == CLOCK_TOOL:
            return 0, 0
        refuse_misspelt(owner, _CONFIGURATION)
        _refuse_others(owner, _CONFIGURATION, kind)
    if owner.get(_ENGINE) not in (None, "auto", *PRICED_ENGINES):
        raise unbounded("tools", ENGINES)
    count(owner, "max_uses", MAX_STEPS, "tools.max_uses")
    count(owner, "max_total_results", MAX_RESULTS_IN_SUM, "tools.max_total_results")
    results = count(owner, _RESULTS, MAX_RESULTS, f"tools.{_RESULTS}") or DEFAULT_RESULTS
    chars = count(owner, _CHARS, MAX_RESULT_CHARS, f"tools.{_CHARS}")
    return results, chars or _open_chars(owner)


def _open_chars(configuration: Mapping[str, Any]) -> int:
    """Return the characters of a result to write where none are named. Raises Refused."""
    size = configuration.get("search_context_size")
    if size is None:
        return DEFAULT_RESULT_CHARS
    if not isinstance(size, str) or size not in CONTEXT_SIZE_CHARS:
        raise invalid("tools.search_context_size", "'low', 'medium' or 'high'")
    return CONTEXT_SIZE_CHARS[size]


def _limit_search(body: Body, tool: Mapping[str, Any], start: int, end: int) -> Iterator[Edit]:
    """Yield the edits of one tool, whose object is from `start` to `end`."""
    owner, owned = tool, (start, end)
    if tool["type"] == SEARCH_TOOL:
        found = {name: (at, to) for name, at, to in member_spans(body.text[start:end])}
        place = found.get("parameters")
        owner = tool.get("parameters") or {}
        if place is None or tool["parameters"] is None:
            text = json.dumps(_open_limits(owner))
            if place is None:
                yield Edit(byte_offset(body, start + 1), 0, f'"parameters":{text},')
            else:
                yield replace_value(body, start + place[0], start + place[1], text)
            return
        owned = start + place[0], start + place[1]
    limits = _open_limits(owner)
    for name, at, to in member_spans(body.text[owned[0] : owned[1]]):
        if name in limits:
            value = json.dumps(limits.pop(name))
            yield replace_value(body, owned[0] + at, owned[0] + to, value)
    if limits:
        comma = "," if owner else ""
        yield Edit(byte_offset(body, owned[0] + 1), 0, json.dumps(limits)[1:-1] + comma)


def _open_limits(configuration: Mapping[str, Any]) -> dict[str, object]:
    """Return the limits that a configuration leaves open, with the values to write."""
    limits: dict[str, object] = {}
    if configuration.get(_ENGINE) in (None, "auto"):
        limits[_ENGINE] = DEFAULT_ENGINE
    if configuration.get(_RESULTS) is None:
        limits[_RESULTS] = DEFAULT_RESULTS
    if configuration.get(_CHARS) is None:
        limits[_CHARS] = _open_chars(configuration)
    return limits
