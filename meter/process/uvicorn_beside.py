"""uvicorn beside the other servers of a process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn


class _Server(uvicorn.Server):
    """A server that installs no signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(
    config: uvicorn.Config, listening: socket.socket, name: str
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve on a bound socket until the block ends, then let requests under way finish.

    The caller binds the socket, because uvicorn ends the process when it cannot bind.
    """
    server = _Server(config)
    running = asyncio.create_task(server.serve([listening]), name=name)
    try:
        yield running
    finally:
        server.should_exit = True
        await asyncio.gather(running, return_exceptions=True)
