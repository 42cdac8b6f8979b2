"""Processes that a supervisor left behind when it was killed."""

import contextlib
import time

import psutil

from tollkeeper.stack.home import Home
from tollkeeper.stack.supervision.status import find_status, is_same_process

# The kernel has told them to end already; Postgres writes a checkpoint first.
GRACE_S = 15.0
POLL_INTERVAL_S = 0.1


def end_leftovers(home: Home) -> int:
    """Wait for processes that a dead supervisor left, then kill them; return their number.

    Only processes that the supervisor noted, and whose number was not given to another. Call this
    as the sole supervisor, so that the processes cannot belong to a living one.
    """
    status = find_status(home.status)
    left = [one for one in status.components if is_same_process(one)] if status else []
    deadline = time.monotonic() + GRACE_S
    while any(is_same_process(one) for one in left) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    for one in left:
        if one.pid is not None and is_same_process(one):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(one.pid).kill()
    return len(left)
