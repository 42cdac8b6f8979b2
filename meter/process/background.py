"""Work that goes on beside something else, and ends with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine


@contextlib.asynccontextmanager
async def background(
    name: str, work: Coroutine[None, None, None]
) -> AsyncIterator[asyncio.Task[None]]:
    """Run it as long as the block does; its name is what an early end is told by."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
