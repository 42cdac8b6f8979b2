"""Runs work in the background of a block."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine


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
