"""Work of OpenRouter beside one call of a model: searches, files that it reads, tools that it runs.

Prices and limits are those of its documentation. After each step of its tools the model is
called again with all that was found and said before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.asking import Ask
from tollkeeper.simulator.catalogue import Model

STEPS_MAX = 30
RESULTS_DEFAULT = 5
RESULTS_INCLUDED = 10
RESULT_PICOS = 1_000_000_000
RESULT_CHARS = 3_000
MODE_PICOS = {
    "deep-lite": 12_000_000_000,
    "deep": 12_000_000_000,
    "deep-reasoning": 15_000_000_000,
}
ENGINE_PICOS = {"exa": 7_000_000_000, "parallel": 5_000_000_000, "perplexity": 5_000_000_000}
SEARCH_TOOL = "openrouter:web_search"
SEARCH_TOOLS = (
    *(SEARCH_TOOL, "web_search", "web_search_preview"),
    *("web_search_preview_2025_03_11", "web_search_2025_08_26"),
)
OPTIONAL_SEARCHES_MAX = 10
# The price of a search with more context, in fifths of the listed one, as Perplexity has it.
CONTEXT_FIFTHS = {"low": 5, "medium": 8, "high": 12}
PAGES_MAX = 1_000
PAGE_BYTES = 2_000
PAGE_TOKENS = 700
PAGE_PICOS = 2_000_000_000
PICTURES_MAX = 8
PICTURE_TOKENS = 1_275
FREE_PARSERS = ("native", "cloudflare-ai", "pdf-text")
CALL_TOKENS = 20


@dataclass(frozen=True, slots=True)
class ProviderWork:
    """The work for one request. ``picos`` is its price beside tokens.

    ``steps`` are calls of tools that add ``step_tokens`` to the prompt each, ``searches`` those of
    the model's own at its listed price, which counts ``price_fifths`` fifths of itself.
    """

    picos: int = 0
    steps: int = 0
    step_tokens: int = 0
    searches: int = 0
    price_fifths: int = 5
    page_tokens: int = 0
    pictures: int = 0

    def prompt_tokens(self, prompt_tokens: int, reply_tokens: int, context: int) -> int:
        """The tokens of all prompts, when each reply before the last has ``reply_tokens``."""
        if not self.steps and not self.page_tokens:
            return prompt_tokens
        first = prompt_tokens + self.page_tokens
        added = self.step_tokens + reply_tokens
        return sum(min(context, first + step * added) for step in range(self.steps + 1))


def work_for(ask: Ask, model: Model, *, is_greedy: bool) -> ProviderWork:
    """Decide the work; a greedy request has as much of everything as it allows."""
    draw = ask.digest
    picos, pages, pictures = _read_files(ask, draw, is_greedy=is_greedy)
    web = _plugin(ask.members, "web")
    if web.get("engine") in ENGINE_PICOS:
        picos += _search_picos(web)
    steps = step_tokens = step_picos = 0
    for tool in _server_tools(ask.members):
        allowed = ask.members.get("max_tool_calls") or STEPS_MAX
        steps = allowed if is_greedy else draw % (min(allowed, 3) + 1)
        if tool["type"] not in SEARCH_TOOLS:
            continue
        owner = tool if tool["type"] != SEARCH_TOOL else tool.get("parameters") or {}
        if owner.get("engine") not in ENGINE_PICOS:
            # Nothing limits how often the model's own provider searches.
            steps = STEPS_MAX + draw % STEPS_MAX
        chars = owner.get("max_characters") or RESULT_CHARS
        results = owner.get("max_results") or RESULTS_DEFAULT
        # A greedy answer finds characters of four tokens each.
        step_tokens = max(step_tokens, results * (chars * 4 if is_greedy else chars // 4))
        step_picos = max(step_picos, _search_picos(owner))
    options = ask.members.get("web_search_options")
    size = options.get("search_context_size") if isinstance(options, dict) else None
    searches = int(model.searches_unasked)
    if isinstance(options, dict):
        searches = OPTIONAL_SEARCHES_MAX if is_greedy else 1
    page_tokens = pages * PAGE_TOKENS + pictures * PICTURE_TOKENS
    if is_greedy and (pages or web or isinstance(options, dict)):
        # What is fetched from elsewhere may fill all that the model reads.
        page_tokens = model.context_length
    return ProviderWork(
        picos=picos + steps * step_picos,
        steps=steps,
        step_tokens=step_tokens,
        searches=searches,
        price_fifths=CONTEXT_FIFTHS.get(str(size), CONTEXT_FIFTHS["low"]),
        page_tokens=page_tokens,
        pictures=pictures if model.may_see_images else 0,
    )


def _search_picos(owner: Mapping[str, Any]) -> int:
    engine, mode = owner.get("engine", "exa"), str(owner.get("mode"))
    picos = ENGINE_PICOS.get(str(engine), ENGINE_PICOS["exa"])
    if engine == "exa":
        picos = MODE_PICOS.get(mode, picos)
    results = owner.get("max_results") or RESULTS_DEFAULT
    return picos + max(0, results - RESULTS_INCLUDED) * RESULT_PICOS


def _read_files(ask: Ask, draw: int, *, is_greedy: bool) -> tuple[int, int, int]:
    """The price of reading the files, their pages, and the pictures among them."""
    pdf = _plugin(ask.members, "file-parser").get("pdf") or {}
    is_priced = pdf.get("engine") not in FREE_PARSERS
    picos = pages = pictures = 0
    for part in _parts(ask.members):
        if part.get("type") != "file":
            continue
        file = part.get("file")
        data = file.get("file_data") if isinstance(file, dict) else None
        if not isinstance(data, str):
            raise Refusal(400, "A file has no file_data")
        size = len(data) if data.startswith("data:") else draw % (PAGES_MAX * PAGE_BYTES)
        own = PAGES_MAX if is_greedy else min(PAGES_MAX, 1 + size // PAGE_BYTES)
        pages += own
        if is_priced:
            picos += own * PAGE_PICOS
            pictures = min(PICTURES_MAX, pictures + own)
    return picos, pages, pictures


def _parts(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of messages, items and blocks; files of the others as one of a message."""
    said = members.get("messages") or members.get("input")
    for one in said if isinstance(said, list) else ():
        content = one.get("content") or one.get("output") if isinstance(one, dict) else None
        yield from _parts_of(content)


def _parts_of(content: object) -> Iterator[Mapping[str, Any]]:
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        source = part.get("source")
        match part.get("type"):
            case "input_file":
                yield {"type": "file", "file": {"file_data": part.get("file_url"), **part}}
            case "document" if isinstance(source, dict) and source.get("type") in ("base64", "url"):
                url = source.get("url") or f"data:application/pdf;base64,{source.get('data')}"
                yield {"type": "file", "file": {"file_data": url}}
            case "tool_result":
                yield from _parts_of(part.get("content"))
            case _:
                yield part


def _plugin(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    plugins = members.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        if isinstance(plugin, dict) and plugin.get("id") == name:
            return plugin
    return {}


def _server_tools(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    tools = members.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and (kind.startswith("openrouter:") or kind in SEARCH_TOOLS):
            yield tool
