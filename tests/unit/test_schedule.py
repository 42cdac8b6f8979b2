"""The end of what the tests of a group share."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests import schedule


def item(node_id: str, config: object) -> pytest.Item:
    return cast("pytest.Item", SimpleNamespace(nodeid=node_id, config=config))


def test_what_a_group_shares_is_made_once_and_ends_with_its_last_test() -> None:
    config: Any = SimpleNamespace(stash=pytest.Stash())
    made, ended = iter("ab"), list[str]()

    def share() -> str:
        return schedule.shared_in_group(config, "stack", lambda: next(made), ended.append)

    first = item("tests/e2e/test_streams.py::test_one", config)
    of_same_group = item("tests/e2e/test_credentials.py::test_two", config)
    other = item("tests/e2e/test_outages.py::test_three", config)
    assert share() == share() == "a"
    schedule.end_with_group(first, of_same_group)
    assert share() == "a" and not ended
    schedule.end_with_group(of_same_group, other)
    assert ended == ["a"]
    assert share() == "b"
    schedule.end_with_group(other, None)
    assert ended == ["a", "b"]
