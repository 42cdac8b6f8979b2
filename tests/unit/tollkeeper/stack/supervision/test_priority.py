"""A process behind all others has a lower priority than processes of other sessions too."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.patience import WAIT_S
from tollkeeper.stack.supervision.priority import behind_others

AUTOGROUP = Path("/proc/self/autogroup")


def run_behind_others(*command: str) -> str:
    done = subprocess.run(
        [*behind_others(5), *command],
        check=True,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=WAIT_S,
    )
    assert not done.stderr
    return done.stdout.strip()


def test_its_arguments_and_its_own_priority() -> None:
    expected = min(os.nice(0) + 5, 19)
    assert run_behind_others("sh", "-c", 'echo "$(nice) $1"', "sh", "a  b") == f"{expected} a  b"


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel may be asked only now and then")
def test_its_session_has_the_priority_too() -> None:
    assert run_behind_others("cat", str(AUTOGROUP)).endswith(" nice 5")
