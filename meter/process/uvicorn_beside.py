"""uvicorn beside the other servers of a process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn


class _Server(uvicorn.Server):
    """Leaves signals alone: they belong to the process, not to it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(
    config: uvicorn.Config, listening: socket.socket, name: str
) -> AsyncIterator[asyncio.Task[None]]:
    """Answer on a bound socket as long as the block runs, then let what is under way finish.

    Bound before, because uvicorn ends the process when it cannot bind. The task has the name.
    """
    server = _Server(config)
    running = asyncio.create_task(server.serve([listening]), name=name)
    try:
        yield running
    finally:
        server.should_exit = True
        await asyncio.gather(running, return_exceptions=True)
