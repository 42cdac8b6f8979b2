"""Whole stacks with short times, so that what takes minutes in earnest is over in seconds."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.stack import ChaosStack, chaos_environment
from tests import schedule

SHORT_TIMES = {
    "TOLLKEEPER_AUTHZ_HOLD_LIFETIME_S": "60",
    "TOLLKEEPER_LOOKUP_FIRST_DELAY_S": "1",
    "TOLLKEEPER_LOOKUP_PATIENCE_S": "10",
    "TOLLKEEPER_LOOKUPS_PER_SECOND": "100",
    "SIMULATOR_GENERATION_DELAY_MS": "500",
}
NO_REPORTS = {"TOLLKEEPER_PROVIDER_REPORTS": "false", "TOLLKEEPER_LOOKUP_PATIENCE_S": "4"}

Start = Callable[[dict[str, str]], ChaosStack]


@pytest.fixture(scope="session")
def start_stack() -> Iterator[Start]:
    """Starts stacks with the settings given; all are ended with the session."""
    started: list[ChaosStack] = []
    with tempfile.TemporaryDirectory(prefix="tk-faults-", dir="/tmp") as folder:

        def start(settings: dict[str, str]) -> ChaosStack:
            home = Path(folder) / str(len(started))
            stack = ChaosStack(home, chaos_environment(home, {**SHORT_TIMES, **settings}), 1)
            started.append(stack)
            stack.up()
            return stack

        yield start
        for stack in started:
            stack.down()


@pytest.fixture(scope="module")
def brisk_stack(request: pytest.FixtureRequest, start_stack: Start) -> ChaosStack:
    """A stack whose provider reports what it bills. Leave it running and healthy."""
    return schedule.shared_in_group(
        request.config, "brisk stack", lambda: start_stack({}), ChaosStack.down
    )


@pytest.fixture
def unreported_stack(start_stack: Start) -> Iterator[ChaosStack]:
    """A stack that hears of generations from Envoy's logs alone; it waits 4 s for a record."""
    stack = start_stack(NO_REPORTS)
    yield stack
    stack.down()
