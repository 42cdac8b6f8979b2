"""The deadline of every check, kept with one timer."""

import asyncio
from types import TracebackType


class Deadlines:
    """Cancels tasks that take longer than `after_s`.

    It does what `asyncio.timeout` does. A timer for each check would cost a tenth of the check; all
    have the same time, so the one that began first is always the next that is due.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        # In the order of their beginnings.
        self._running: dict[_Watch, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> "_Watch":
        """Return a context manager that raises TimeoutError when its block takes too long."""
        return _Watch(self)

    def begin(self, watch: "_Watch", loop: asyncio.AbstractEventLoop) -> float:
        """Note that a block began; return when it is due, on the clock of the loop."""
        self._running[watch] = None
        due_s = loop.time() + self._after_s
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._sweep, loop)
        return due_s

    def end(self, watch: "_Watch") -> None:
        """Note that a block has ended."""
        self._running.pop(watch, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is due, and set the timer for the next."""
        self._timer = None
        now_s = loop.time()
        while self._running:
            first = next(iter(self._running))
            if first.due_s > now_s:
                self._timer = loop.call_at(first.due_s, self._sweep, loop)
                return
            del self._running[first]
            first.cancel()


class _Watch:
    """One block of code with a deadline."""

    __slots__ = ("_cancelling", "_deadlines", "_is_late", "_task", "due_s")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self.due_s = self._deadlines.begin(self, asyncio.get_running_loop())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.end(self)
        # Somebody else may have cancelled the task at the same time: that goes first.
        if (
            self._is_late
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def cancel(self) -> None:
        """End the block, because it is late."""
        self._is_late = True
        self._task.cancel()
