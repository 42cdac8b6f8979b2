"""Runs work in the background of a block."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine


class RunningTasks:
    """Tasks of one owner that run beside one another; each is forgotten when it has ended."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Run a task under its name."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def cancel(self) -> None:
        """Cancel all tasks that run, and wait until they have ended."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running)


@contextlib.asynccontextmanager
async def background(
    name: str, work: Coroutine[None, None, None]
) -> AsyncIterator[asyncio.Task[None]]:
    """Run a task until the block ends. An end before that is logged under its name."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
