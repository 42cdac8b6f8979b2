"""Time in tests: they wait long for what must happen, and never judge how long it took.

A test that waits for an event uses WAIT_S, which only a failure reaches. A test that bounds work
multiplies its limit with `slowness()`, so that the limit means the same on any machine. Speed
itself is measured by `make bench`, as ratios.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final

# Longer than anything takes on a slow machine that is busy with something else.
WAIT_S: Final = 300.0
POLL_INTERVAL_S: Final = 0.02

LOOPS: Final = 200_000
ROUNDS: Final = 5
# CPU seconds that the loop below takes on the machine for which limits were chosen.
REFERENCE_S: Final = 0.006


async def until(condition: Callable[[], Awaitable[object] | object], what: str) -> None:
    """Poll until the condition, a function or a coroutine function, returns something true.

    Raises AssertionError after WAIT_S, which says what was awaited.
    """
    deadline_s = time.monotonic() + WAIT_S
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited {WAIT_S:.0f} s in vain until {what}")
        await asyncio.sleep(POLL_INTERVAL_S)


@cache
def slowness() -> float:
    """Return how many times slower than the reference machine this one is, at least 1."""
    return max(1.0, min(_loop_s() for _ in range(ROUNDS)) / REFERENCE_S)


def _loop_s() -> float:
    began_s = time.process_time()
    total = 0
    for number in range(LOOPS):
        total += number & 7
    return time.process_time() - began_s
