"""Faults of both access logs: severed, said twice, replayed, rotated, truncated."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from chaos.replayed import message_from_lines
from chaos.schedule import Fault
from chaos.stack import ChaosStack

REPLAYED_MOST: Final = 120
TAIL_BYTES: Final = 400_000
LOOK_EVERY_S: Final = 0.05
CALL_TIMEOUT_S: Final = 3.0
_METHOD: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


class LogFaults:
    """Keeps a copy of whatever it takes out of the file, for the checker."""

    def __init__(self, stack: ChaosStack, kept: Path) -> None:
        self._stack = stack
        self._kept = kept
        self._copies = 0
        kept.mkdir(exist_ok=True)

    async def hide_ingest(self, for_s: float) -> None:
        """Hide the meters' ingest from new connections. Connections that are there stay."""
        hidden: dict[Path, Path] = {}
        deadline = time.monotonic() + for_s
        try:
            while time.monotonic() < deadline:
                for path in self._stack.ingest_sockets():
                    hidden[path] = path.with_suffix(".hidden")
                    path.rename(hidden[path])
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for path, elsewhere in hidden.items():
                # One that was started in this very moment has made its own.
                if not path.exists():
                    elsewhere.rename(path)

    async def replay_file(self, fault: Fault) -> None:
        """Old lines once more at the end of the file, some of them twice, in another order."""
        lines = self._old_lines(fault)
        if lines:
            with self._stack.access_log.open("ab", buffering=0) as log:
                log.write(b"".join(line + b"\n" for line in lines + lines[:10]))

    async def replay_stream(self, fault: Fault) -> None:
        """Old entries once more, to every meter at once, some of them twice."""
        lines = self._old_lines(fault)
        message = message_from_lines([line.decode() for line in lines + lines[:10]])
        sockets = self._stack.ingest_sockets()
        await asyncio.gather(*(self._send(path, [message] * 2) for path in sockets))

    async def rotate(self, fault: Fault) -> None:
        """As logrotate does it: another name for the file, then SIGUSR1.

        A number is a name that the reader follows; what goes to the other is settled otherwise.
        """
        log = self._stack.access_log
        self._copies += 1
        name = f"{log.name}.{self._copies}" + ("-by-hand" if fault.draw % 2 else "")
        with contextlib.suppress(FileNotFoundError):
            log.rename(log.with_name(name))
        for one in self._stack.instances_of("envoy"):
            if one.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGUSR1)

    async def truncate(self, _: Fault) -> None:
        """Empty the file where it stands, as a careless `: > access.jsonl` does."""
        log = self._stack.access_log
        if log.exists():
            self._copies += 1
            shutil.copyfile(log, self._kept / f"truncated-{self._copies}.jsonl")
            os.truncate(log, 0)

    def _old_lines(self, fault: Fault) -> list[bytes]:
        """Whole lines of paid requests from the end of the file."""
        with contextlib.suppress(FileNotFoundError), self._stack.access_log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            found = [line for line in log.read().split(b"\n")[1:-1] if b'"hold_id":"' in line]
            draw = random.Random(fault.draw)
            return draw.sample(found, min(len(found), REPLAYED_MOST))
        return []

    async def _send(self, path: Path, messages: list[bytes]) -> None:
        def said() -> Iterator[bytes]:
            yield from messages

        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_METHOD)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call(said(), timeout=CALL_TIMEOUT_S)
