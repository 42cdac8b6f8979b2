"""Tools of a body for /responses: those that run at the client, and those that are refused."""

from typing import Final

from authz.endpoints.advice import advise_on_tool
from authz.endpoints.members import invalid, refuse_misspelt, unbounded
from authz.endpoints.server_tools import is_server_tool

# Their definition is text of the body.
_DEFINED_TOOLS: Final = frozenset({"function", "custom"})
# Tools that the model knows by name, so that their definition is not in the body.
_BUILT_IN_TOOLS: Final = frozenset({"local_shell", "apply_patch"})
# The most tokens that the definition of one of them may add to the prompt. No provider documents
# a number; definitions of such tools that are public have some hundred.
BUILT_IN_TOOL_TOKENS: Final = 2_048
_TOOL_MEMBERS: Final = frozenset({"type", "cache_control", "environment", "execution", "tools"})
_INSTEAD: Final = {
    "shell": "The tool 'shell' runs at your side only with 'environment': {'type': 'local'}.",
    "tool_search": "The tool 'tool_search' runs at your side only with 'execution': 'client'.",
}


def count_built_in_tools(tools: object, param: str, takes_server_tools: bool = False) -> int:
    """Return how many tools of the client have no definition in the body.

    Raises Refused for tools that run, and are billed, at the provider. `takes_server_tools` says
    that those with a bound of their own (`server_tools.py`) are passed over.
    """
    if tools is None:
        return 0
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise invalid(param, "a list of objects")
    found = 0
    for tool in tools:
        refuse_misspelt(tool, _TOOL_MEMBERS)
        kind, environment = tool.get("type"), tool.get("environment")
        if not isinstance(kind, str):
            raise unbounded(param, "Give each tool a 'type', such as 'function'.")
        is_local = isinstance(environment, dict) and environment.get("type") == "local"
        if kind == "namespace":
            found += count_built_in_tools(tool.get("tools"), f"{param}.tools")
        elif (
            kind in _BUILT_IN_TOOLS
            or (kind == "shell" and is_local)
            or (kind == "tool_search" and tool.get("execution") == "client")
        ):
            found += 1
        elif kind not in _DEFINED_TOOLS and not (takes_server_tools and is_server_tool(tool)):
            raise unbounded(param, _INSTEAD.get(kind) or advise_on_tool(tool))
    return found
