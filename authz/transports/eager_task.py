"""A task that begins at once, and costs a tenth of one of asyncio.

A task of asyncio begins in the next turn of the event loop, in a copy of the context, and is known
to `asyncio.all_tasks`. An ordinary check needs none of that: it runs up to its hold without a wait.
"""

from asyncio import AbstractEventLoop, CancelledError, Future
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine
from typing import Any


class EagerTask:
    """Runs a coroutine up to its first wait, and afterwards from wait to wait.

    To the coroutine it is `asyncio.current_task()`, so that timeouts, shields and cancellation work
    as in any task; `_enter_task` and `_leave_task` are what asyncio documents for this purpose. The
    coroutine returns None and catches its errors: one that it does not catch goes to whoever let it
    run, which is the event loop or the caller of `begin`.
    """

    __slots__ = (
        "_cancels",
        "_coroutine",
        "_ended",
        "_is_done",
        "_loop",
        "_must_cancel",
        "_waits_for",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, None], loop: AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._waits_for: Future[Any] | None = None
        self._cancels = 0
        self._must_cancel = False
        self._is_done = False
        self._ended: Future[None] | None = None

    def begin(self) -> None:
        """Run up to the first wait, or to the end. Call it once, and in no other task."""
        self._step()

    def done(self) -> bool:
        """Return whether the coroutine has ended."""
        return self._is_done

    def ended(self) -> "Future[None]":
        """Return a future that is done when the coroutine has ended."""
        if self._ended is None:
            self._ended = self._loop.create_future()
            if self._is_done:
                self._ended.set_result(None)
        return self._ended

    def cancel(self, msg: object = None) -> bool:
        """Have CancelledError raised where the coroutine waits; False where it has ended."""
        if self._is_done:
            return False
        self._cancels += 1
        # A future that is done already cannot be cancelled: then the next step raises.
        if self._waits_for is None or not self._waits_for.cancel():
            self._must_cancel = True
        return True

    def cancelling(self) -> int:
        """Return how many cancellations were asked for and not taken back."""
        return self._cancels

    def uncancel(self) -> int:
        """Take one cancellation back; return how many are left."""
        if self._cancels:
            self._cancels -= 1
        return self._cancels

    def _step(self, _: object = None) -> None:
        """Let the coroutine run up to its next wait."""
        self._waits_for = None
        loop: Any = self._loop
        _enter_task(loop, self)  # type: ignore[arg-type]
        try:
            if self._must_cancel:
                self._must_cancel = False
                waited = self._coroutine.throw(CancelledError())
            else:
                # The future that was waited for gives its result, or raises, in the coroutine.
                waited = self._coroutine.send(None)
        except (StopIteration, CancelledError):
            self._end()
            return
        except BaseException:
            self._end()
            raise
        finally:
            _leave_task(loop, self)  # type: ignore[arg-type]
        if waited is None:
            # A wait for nothing but the next turn of the loop: `asyncio.sleep(0)`.
            loop.call_soon(self._step)
            return
        # The mark by which a future says that it is awaited, and not merely yielded.
        waited._asyncio_future_blocking = False
        waited.add_done_callback(self._step)
        self._waits_for = waited
        if self._must_cancel and waited.cancel():
            self._must_cancel = False

    def _end(self) -> None:
        self._is_done = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
