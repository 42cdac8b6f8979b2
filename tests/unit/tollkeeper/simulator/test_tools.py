"""The tool that a simulated model calls: one for each message of the user, then it speaks."""

import pytest

from tollkeeper.simulator.answers.tools import Tool, ToolMode, choose_call

READ = Tool("read", {"type": "object", "properties": {"path": {"type": "string"}}})
WRITE = Tool("write")
READ_ALL = Tool("read_all")
TOOLS = (READ, WRITE, READ_ALL)


def called(**asked: object) -> str | None:
    call = choose_call(TOOLS, **asked)  # type: ignore[arg-type]
    return None if call is None else call.tool.name


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"said": "Hello"}, "read"),
        ({"said": "Hello", "called": ["read"]}, None),
        ({"said": "Use read_all, please"}, "read_all"),
        ({"said": "Use read_all", "called": ["read_all"]}, None),
        ({"mode": ToolMode.NONE, "said": "read"}, None),
        ({"mode": ToolMode.REQUIRED, "said": "Hello", "called": ["read"]}, "write"),
        ({"mode": ToolMode.REQUIRED, "called": ["read", "write", "read_all"]}, "read_all"),
        ({"forced_name": "write", "called": ["write"]}, "write"),
        ({"forced_name": "absent"}, None),
        ({"said": 'read {"path": "a"} then write {"b": 1}', "called": ["read"]}, "write"),
        ({"said": 'read {"path": "a"} then write {"b": 1}', "called": ["write", "read"]}, None),
    ],
)
def test_the_call_depends_on_what_was_said_and_called(asked: dict[str, object], name: str) -> None:
    assert called(**asked) == name


def test_arguments_fit_the_schema_or_are_what_the_user_wrote() -> None:
    call = choose_call(TOOLS, said="Hello")
    assert call is not None and call.arguments("simulated") == '{"path": "simulated"}'
    call = choose_call(TOOLS, said='Call write {"text": "{ö}"} now')
    assert call is not None and call.arguments("simulated") == '{"text": "{ö}"}'
    call = choose_call(TOOLS, said="Call write {not JSON")
    assert call is not None and call.arguments("simulated") == "{}"
    assert choose_call((), mode=ToolMode.REQUIRED) is None


def test_a_tool_of_free_text_gets_text() -> None:
    patch = Tool("patch", is_free_text=True)
    call = choose_call([patch], said='patch {"input": "*** Begin Patch"}')
    assert call is not None and call.arguments("simulated") == "*** Begin Patch"
