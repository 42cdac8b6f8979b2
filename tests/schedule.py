"""Decide which tests run on one worker of pytest-xdist, and in which order.

A file runs on one worker, so that its module fixtures are made once. Files that share a stack form
a few groups, because each worker that needs that stack starts its own, and every stack costs some
ten seconds of CPU. What waits longest comes first, so that no worker begins with it when the others
are about to end.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

# These start stacks of their own and share nothing with the other tests of their files.
ALONE: Final = (
    "tests/faults/test_chaos.py::test_a_short_campaign_loses_nothing",
    "tests/faults/test_leaving.py::test_without_reports_a_policy_decides_where_nobody_knows"
    "_the_generation",
)

# Each line shares one stack and one worker. A file that is missing here runs by itself. The first
# line shares the stack of `tests/faults/conftest.py`, the others that of `tests/e2e/conftest.py`.
SHARED_STACKS: Final = (
    ("test_leaving", "test_stream_away", "test_sse_splits"),
    ("test_outages", "test_life", "test_explain", "test_exact_bill", "test_file_settles"),
    (
        "test_streams",
        "test_credentials",
        "test_docs_examples",
        "test_openai_client",
        "test_responses",
    ),
    (
        "test_http_checks",
        "test_proxies",
        "test_refusals",
        "test_snippets",
        "test_snippets_kubernetes",
        "test_reconcile",
        "test_overspending",
        "test_secrets",
        "test_prices",
        "test_provider_key",
        "test_withheld_bodies",
    ),
)
_STACK_OF: Final = {
    name: f"shared stack {number}"
    for number, names in enumerate(SHARED_STACKS, 1)
    for name in names
}

LONGEST_FIRST: Final = (
    "tests/faults/test_chaos.py",
    "shared stack",
    "tests/faults/test_leaving.py",
    "tests/faults",
    "tests/e2e",
    "tests/laws",
    "tests/real",
    "tests/contract",
)


def group_of(node_id: str) -> str:
    """Return the name of the group that a test runs in; a group runs on one worker, in order."""
    if node_id in ALONE:
        return node_id
    path = node_id.partition("::")[0]
    name = path.rpartition("/")[2].removesuffix(".py")
    return _STACK_OF.get(name, path) if path.startswith(("tests/e2e/", "tests/faults/")) else path


def rank_of(node_id: str) -> tuple[int, str]:
    """Return the key to sort tests by: the longest groups first, each group together."""
    group = group_of(node_id)
    ranks = (rank for rank, prefix in enumerate(LONGEST_FIRST) if group.startswith(prefix))
    return next(ranks, len(LONGEST_FIRST)), group


T = TypeVar("T")
_Shared = dict[str, tuple[Any, Callable[[], None]]]
_SHARED: Final = pytest.StashKey[_Shared]()


def shared_in_group(
    config: pytest.Config, name: str, start: Callable[[], T], end: Callable[[T], None]
) -> T:
    """Return what the tests of a group share; the first that asks for it starts it.

    It is ended after the last test of the group: a stack that nobody uses takes CPU from others.
    """
    shared = config.stash.setdefault(_SHARED, {})
    if name not in shared:
        made = start()
        shared[name] = (made, lambda: end(made))
    value: T = shared[name][0]
    return value


def end_with_group(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End what a group shared where the next test is of another group."""
    if nextitem is None or group_of(nextitem.nodeid) != group_of(item.nodeid):
        shared = item.config.stash.setdefault(_SHARED, {})
        while shared:
            _, (_, end) = shared.popitem()
            end()


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Hands whole groups to workers, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
