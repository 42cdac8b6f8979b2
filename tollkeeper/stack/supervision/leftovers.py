"""Processes that a supervisor left behind when it was killed."""

import contextlib
import time

import psutil

from tollkeeper.stack.home import Home
from tollkeeper.stack.supervision.status import ComponentStatus, find_status, is_same_process

# The kernel has told them to end already; Postgres writes a checkpoint first.
GRACE_S = 15.0
POLL_INTERVAL_S = 0.1


def end_leftovers(home: Home) -> int:
    """Wait for what a dead supervisor left, then end it; returns how many there were.

    Only processes that the supervisor noted, and that are still the same ones.
    Call it as the sole supervisor, so that nobody's living children are meant.
    """
    left = _living(home)
    deadline = time.monotonic() + GRACE_S
    while any(is_same_process(one) for one in left) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    for one in left:
        if one.pid is not None and is_same_process(one):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(one.pid).kill()
    return len(left)


def _living(home: Home) -> list[ComponentStatus]:
    status = find_status(home.status)
    components = status.components if status else ()
    return [one for one in components if is_same_process(one)]
