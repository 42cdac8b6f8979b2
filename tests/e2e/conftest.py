"""One running stack for all end-to-end tests, and fresh ones for those that break theirs."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import schedule
from tests.e2e.admin import Admin
from tests.e2e.running_stack import RunningStack, fresh_environment
from tollkeeper.stack.servers.ports import free_port


@pytest.fixture(scope="session")
def make_stack() -> Iterator[Callable[[], RunningStack]]:
    """Makes stacks that are not started yet; all are ended with the session."""
    made: list[RunningStack] = []
    with tempfile.TemporaryDirectory(prefix="tk-e2e-", dir="/tmp") as folder:

        def make() -> RunningStack:
            home = Path(folder) / str(len(made))
            made.append(RunningStack(home, fresh_environment(home, free_port(), free_port())))
            return made[-1]

        yield make
        for stack in made:
            stack.end()


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, make_stack: Callable[[], RunningStack]) -> RunningStack:
    """The stack that tests share. Leave it running and healthy."""

    def start() -> RunningStack:
        running = make_stack()
        running.up()
        return running

    return schedule.shared_in_group(request.config, "stack", start, RunningStack.end)


@pytest.fixture
def admin(stack: RunningStack) -> Iterator[Admin]:
    """An administrator of the shared, healthy stack; resets the upstream afterwards."""
    admin = Admin(stack)
    admin.wait_well()
    yield admin
    admin.control("DELETE", "behaviours")
    if admin.is_key_doubted:
        admin.restore_key()
