"""Chooses the tool that a simulated model calls, and the arguments of the call.

A model calls one tool after each message of the user and speaks once the tool has replied, so
that the loop of an agent ends. A user who names tools, each followed by a JSON object, has them
called in this order with exactly these arguments: ``write {"path": "a.txt", "text": "a"}``.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tollkeeper.simulator.answers.examples import example_of

SAID_MAX_CHARS: Final = 32_768
"""Characters at the end of the user's message in which names of tools are looked for."""


class ToolMode(StrEnum):
    """The member ``tool_choice`` of a request, beside naming one tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers; ``parameters`` is a JSON schema."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    is_free_text: bool = False
    """True for a tool whose input is a text in place of a JSON object."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model makes. ``given`` is what the user wrote as its arguments."""

    tool: Tool
    given: dict[str, Any] | None = None

    def arguments(self, word: str) -> str:
        """Return the arguments as JSON text, or the input of a tool that takes text."""
        if self.tool.is_free_text:
            return word if self.given is None else str(self.given.get("input", word))
        made = self.given
        if made is None:
            made = example_of(self.tool.parameters, word)
        return json.dumps(made if isinstance(made, dict) else {}, ensure_ascii=False)


def choose_call(
    tools: Sequence[Tool],
    *,
    mode: ToolMode = ToolMode.AUTO,
    forced_name: str | None = None,
    said: str = "",
    called: Collection[str] = (),
) -> ToolCall | None:
    """Return the call that the model makes now, None where it speaks.

    ``said`` is the last message of the user, ``called`` the names of the tools that were called
    since, in order. A tool that ``tool_choice`` names is called whatever was called before.
    """
    by_name = {tool.name: tool for tool in tools}
    said = said[-SAID_MAX_CHARS:]
    if forced_name is not None:
        tool = by_name.get(forced_name)
        given = next((one for name, one in _named(said, by_name) if name == forced_name), None)
        return ToolCall(tool, given) if tool is not None else None
    if not by_name or mode is ToolMode.NONE:
        return None
    named = _named(said, by_name)
    told = [(name, given) for name, given in named if given is not None]
    if len(called) < len(told):
        name, given = told[len(called)]
        return ToolCall(by_name[name], given)
    if mode is ToolMode.REQUIRED:
        # A client that demands calls ends its loop by a tool of its own, offered beside others.
        fresh = [tool for name, tool in by_name.items() if name not in called]
        return ToolCall(fresh[0] if fresh else tools[-1])
    if called or told:
        return None
    return ToolCall(by_name[named[0][0]] if named else tools[0])


def _named(said: str, names: Collection[str]) -> list[tuple[str, dict[str, Any] | None]]:
    """Return the tools that a text names, in its order, each with the JSON object behind it."""
    if not said or not names:
        return []
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    found: list[tuple[str, dict[str, Any] | None]] = []
    for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", said):
        rest = said[match.end() :].lstrip()
        given = None
        if rest.startswith("{"):
            try:
                given, _ = json.JSONDecoder().raw_decode(rest)
            except (ValueError, RecursionError):
                given = None
        found.append((match.group(), given))
    return found
