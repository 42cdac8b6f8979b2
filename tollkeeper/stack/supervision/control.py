"""The Unix socket by which `tollkeeper restart` reaches the supervisor.

One request a connection: a line of JSON, answered with the messages of `report.py` until
`ready` or `failed`. Every user who may open the folder may send requests.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import Home, find_supervisor
from tollkeeper.stack.supervision.report import Kind, received
from tollkeeper.stack.supervision.supervisor import Supervisor

MAX_REQUEST_BYTES = 4096
# Longer than the slowest graceful end of one component, several times over.
RESTART_TIMEOUT_S = 900.0
PRIVATE_UMASK = 0o177


@contextlib.asynccontextmanager
async def listening(home: Home, supervisor: Supervisor) -> AsyncIterator[None]:
    """Serve requests as long as the block runs."""
    home.control.unlink(missing_ok=True)
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve(supervisor, reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    before = os.umask(PRIVATE_UMASK)
    try:
        server = await asyncio.start_unix_server(serve, home.control, limit=MAX_REQUEST_BYTES)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        home.control.unlink(missing_ok=True)
        # A restart under way must not bring back what is about to be stopped.
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _serve(
    supervisor: Supervisor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    def say(kind: Kind, text: str) -> None:
        writer.write(json.dumps([kind, text]).encode() + b"\n")

    try:
        try:
            name = str(json.loads(await reader.readline())["restart"])
        except (ValueError, KeyError, TypeError):
            raise StackError("The supervisor does not understand this request.") from None
        await supervisor.restart(name, lambda line: say("line", line))
        say("ready", f"{name} restarted")
    except StackError as error:
        say("failed", str(error))
    finally:
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


def ask_restart(home: Home, component: str) -> Iterator[str]:
    """Ask the running supervisor to restart a component; yield its messages until the end.

    Raises StackError when none runs, or when the restart failed.
    """
    if find_supervisor(home) is None:
        raise StackError("Tollkeeper is not running; `make up` starts it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(RESTART_TIMEOUT_S)
        try:
            asking.connect(str(home.control))
            asking.sendall(json.dumps({"restart": component}).encode() + b"\n")
            with asking.makefile() as stream:
                for message in received(stream):
                    if message.kind == "failed":
                        raise StackError(message.text)
                    yield message.text
                    if message.kind == "ready":
                        return
                raise StackError("The supervisor ended before the restart did.")
        except (FileNotFoundError, ConnectionRefusedError):
            raise StackError(
                "Tollkeeper is still starting, or stopping already; try again when "
                "`tollkeeper status` says that it runs."
            ) from None
        except OSError as error:
            raise StackError(f"The supervisor does not answer: {error}.") from error
