"""Carries the schedule out. What it does to whom was decided before; it only keeps time."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from chaos import store_faults
from chaos.log_faults import LogFaults
from chaos.process_faults import ProcessFaults
from chaos.schedule import CRASH_POINTS, Fault
from chaos.stack import ChaosStack

LOOK_EVERY_S: Final = 0.2
COME_BACK_MOST_S: Final = 20.0

Act = Callable[[Fault], Awaitable[None]]


class Nemesis:
    """The faults of one campaign. `others` counts those that are no kill."""

    def __init__(self, stack: ChaosStack, crash_folder: Path, kept: Path) -> None:
        self._stack = stack
        self._crash_folder = crash_folder
        self._logs = LogFaults(stack, kept)
        self.processes = ProcessFaults(stack)
        self.others: Counter[str] = Counter()
        self._armed: set[str] = set()

    async def strike(self, faults: list[Fault]) -> None:
        """Do all of it at its time, counted from now; returns when the last fault is over."""
        began = time.monotonic()
        watching = [
            asyncio.create_task(self.processes.watch()),
            asyncio.create_task(self._watch_crash_points()),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
                    group.create_task(self._do(fault))
        finally:
            await self._relent(watching)

    async def _relent(self, watching: list[asyncio.Task[None]]) -> None:
        """Nothing stays broken by us."""
        await store_faults.allow_writes(self._stack)
        for point in CRASH_POINTS:
            (self._crash_folder / point).unlink(missing_ok=True)
        # What was killed last is seen coming back as well.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.processes.all_back.wait(), COME_BACK_MOST_S)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    async def _do(self, fault: Fault) -> None:
        if fault.action not in ("kill", "kill_several", "crash"):
            self.others[fault.action] += 1
        await self._act(fault.action)(fault)

    def _act(self, action: str) -> Act:
        acts: dict[str, Act] = {
            "kill": self.processes.kill,
            "kill_several": self.processes.kill,
            "restart": self.processes.restart,
            "pause": self.processes.pause,
            "pause_long": self.processes.pause,
            "kill_backend": self.processes.kill_backend,
            "crash": self._arm,
            "sever_stream": self._sever,
            "replay_file": self._logs.replay_file,
            "replay_stream": self._logs.replay_stream,
            "rotate_log": self._logs.rotate,
            "truncate_log": self._logs.truncate,
        }
        return acts.get(action) or self._of_store(action)

    def _of_store(self, action: str) -> Act:
        acts = {
            "refuse_writes": store_faults.refuse_writes,
            "lock_accounts": store_faults.lock_accounts,
            "end_backends": store_faults.end_backends,
            "empty_redis": store_faults.empty_redis,
        }
        return lambda fault: acts[action](self._stack, fault)

    async def _sever(self, fault: Fault) -> None:
        """The stream is cut, and stays away; the meters run on without it."""
        hiding = asyncio.create_task(self._logs.hide_ingest(fault.for_s))
        await self.processes.kill_all("meter")
        await hiding

    async def _arm(self, fault: Fault) -> None:
        """Kill the process that comes past this point in its own code next."""
        point = fault.targets[0]
        (self._crash_folder / point).touch()
        self._armed.add(point)

    async def _watch_crash_points(self) -> None:
        while True:
            for point in list(self._armed):
                with contextlib.suppress(OSError):
                    if not (self._crash_folder / point).exists():
                        self._armed.discard(point)
                        self.processes.note_crash(point.partition(".")[0].replace("sweep", "meter"))
            await asyncio.sleep(LOOK_EVERY_S)
