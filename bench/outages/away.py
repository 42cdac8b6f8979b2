"""Takes a component away, and gives it back."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from chaos.stack import ChaosStack, signal_family
from tollkeeper.stack.home import find_supervisor, locate

LOOK_EVERY_S: Final = 0.005
WAIT_S: Final = 60.0
CONNECTED: Final = "03"
DISK_MIB: Final = 64
PIECE_BYTES: Final = 4_096

Away = AbstractAsyncContextManager[None]


@contextlib.asynccontextmanager
async def processes_away(stack: ChaosStack, *kinds: str, how_many: int = 0) -> AsyncIterator[None]:
    """Killed, and not started again inside the block; all instances where no number is given."""
    supervisor = find_supervisor(locate(stack.home))
    if supervisor is None:
        raise RuntimeError("the stack is not running")
    chosen = [one for kind in kinds for one in stack.instances_of(kind)[-how_many:]]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        for one in chosen:
            if one.pid is not None:
                signal_family(one.pid, signal.SIGKILL)
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)


@contextlib.asynccontextmanager
async def stream_away(stack: ChaosStack) -> AsyncIterator[None]:
    """Take Envoy's access-log stream away inside the block; the meters run all the same.

    Connections that are there end with their meters, which are killed one after the other.
    """
    hidden: dict[Path, Path] = {}
    hiding = asyncio.create_task(_hide_ingest(stack, hidden))
    try:
        for meter in stack.instances_of("meter"):
            await _replace(stack, meter.name)
        while taken := await _still_connected(stack):
            await _replace(stack, taken)
        yield
    finally:
        hiding.cancel()
        await asyncio.gather(hiding, return_exceptions=True)
        for path, elsewhere in hidden.items():
            elsewhere.rename(path)


async def _hide_ingest(stack: ChaosStack, hidden: dict[Path, Path]) -> None:
    while True:
        for path in stack.ingest_sockets():
            hidden[path] = path.with_suffix(".hidden")
            path.rename(hidden[path])
        await asyncio.sleep(LOOK_EVERY_S)


async def _replace(stack: ChaosStack, name: str) -> None:
    """Kill a process, and wait until its successor answers."""
    (before,) = [one for one in stack.components() if one.name == name]
    if before.pid is not None:
        signal_family(before.pid, signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while True:
            (now,) = [one for one in stack.components() if one.name == name]
            if now.restarts > before.restarts and now.is_healthy:
                return
            await asyncio.sleep(0.05)


async def _still_connected(stack: ChaosStack) -> str | None:
    """A meter whose socket Envoy found in the moment before it was hidden."""
    await asyncio.sleep(1.0)
    for line in Path("/proc/net/unix").read_text().splitlines():
        words = line.split()
        if len(words) == 8 and words[5] == CONNECTED:
            path = Path(words[7])
            if path.parent == stack.run_folder and path.name.startswith("ingest"):
                return path.stem.replace("ingest", "meter")
    return None


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A small disk at `folder`; False where this user may not mount one."""
    options = f"size={DISK_MIB}m,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.asynccontextmanager
async def disk_full(stack: ChaosStack) -> AsyncIterator[None]:
    """No byte more fits where Envoy writes its file log."""
    ballast = stack.access_log.with_name("ballast")
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(PIECE_BYTES)):
            pass
    try:
        yield
    finally:
        ballast.unlink()
