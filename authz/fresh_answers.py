"""Answers of Postgres that are kept for less than a second, and look-ups that those who ask share.

A revocation or a deletion takes effect within a second. So the age of an answer counts from the
beginning of its look-up, and an answer that took too long itself is looked up again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Final, Generic, TypeVar

from meter.clock import Clock
from meter.values import light_value

# An answer whose look-up began longer ago may be from before a revocation that must be in effect by
# now. Above the greatest age of an answer that is kept.
MAX_ANSWER_AGE_S: Final = 0.95

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@light_value
class FreshAnswer(Generic[Value]):
    """An answer, when its look-up began, and until when it may be kept; on the monotonic clock."""

    value: Value
    began_s: float
    stale_at_s: float


class FreshAnswers(Generic[Key, Value]):
    """Answers by key, at most so many, each until it is stale.

    All live equally long, so that those that were put in first are stale first.
    """

    def __init__(self, max_cached: int, clock: Clock) -> None:
        self._found: dict[Key, FreshAnswer[Value]] = {}
        self._max_cached = max_cached
        self._clock = clock

    def get(self, key: Key) -> FreshAnswer[Value] | None:
        """Return an answer that is not stale; None where there is none."""
        found = self._found.get(key)
        if found is None or found.stale_at_s <= self._clock.monotonic_s():
            return None
        return found

    def put(self, key: Key, found: FreshAnswer[Value]) -> None:
        """Keep an answer, and drop those that are stale or too many."""
        kept = self._found
        kept.pop(key, None)
        kept[key] = found
        now_s = self._clock.monotonic_s()
        while kept:
            oldest = next(iter(kept))
            if kept[oldest].stale_at_s > now_s and len(kept) <= self._max_cached:
                return
            del kept[oldest]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class SharedLookups(Generic[Key, Value]):
    """Look-ups under way, of which there is one at a time for each key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[Key, asyncio.Task[FreshAnswer[Value]]] = {}

    async def find(
        self, key: Key, begin: Callable[[float], Coroutine[Any, Any, FreshAnswer[Value]]]
    ) -> FreshAnswer[Value]:
        """Return an answer whose look-up began at most MAX_ANSWER_AGE_S ago.

        `begin` makes a look-up that begins at this time. Raises what `begin` and it raise. The
        deadline of the check ends this where Postgres stays slow.
        """
        while True:
            task = self._running.get(key)
            if task is None:
                task = asyncio.ensure_future(begin(self._clock.monotonic_s()))
                self._running[key] = task
                task.add_done_callback(lambda done: self._forget(key, done))
            # A waiter that is cancelled must not cancel the look-up that others wait for.
            found = await asyncio.shield(task)
            if self._clock.monotonic_s() - found.began_s < MAX_ANSWER_AGE_S:
                return found

    def _forget(self, key: Key, done: "asyncio.Task[FreshAnswer[Value]]") -> None:
        del self._running[key]
        if not done.cancelled():
            # When every waiter was cancelled, nobody retrieves the exception, and the event loop
            # would log that.
            done.exception()
