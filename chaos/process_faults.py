"""Faults of whole processes: killed, held still, asked to end."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

import psutil

from chaos.schedule import Fault
from chaos.stack import ChaosStack, Component, family_of, signal_all

WATCH_EVERY_S: Final = 0.1
WAIT_FOR_PROCESS_S: Final = 5.0
_SERVICE_BACKEND: Final = "tollkeeper_service"


@dataclass(frozen=True, slots=True)
class _Death:
    kind: str
    name: str
    pid: int
    at: float


class ProcessFaults:
    """Counts what it ends, by kind, and how many seconds each took to answer again.

    `all_back` is set while nothing that was killed is still away.
    """

    def __init__(self, stack: ChaosStack) -> None:
        self._stack = stack
        self._deaths: list[_Death] = []
        self.all_back = asyncio.Event()
        self.all_back.set()
        self.kills: Counter[str] = Counter()
        self.recoveries_s: dict[str, list[float]] = {}

    async def kill(self, fault: Fault) -> None:
        """SIGKILL one instance of each target, all at the same moment."""
        found = [(kind, await self._instance(kind, fault.draw)) for kind in fault.targets]
        for kind, one in found:
            self._kill(kind, one)

    async def kill_all(self, kind: str) -> None:
        """SIGKILL every instance."""
        for one in self._stack.instances_of(kind):
            self._kill(kind, one)

    async def restart(self, fault: Fault) -> None:
        """Ask it to end as an operator would; the supervisor starts it again."""
        one = await self._instance(fault.targets[0], fault.draw)
        # On SIGTERM, Postgres waits for the last of its clients to go away by itself.
        is_postgres = fault.targets[0] == "postgres"
        self._signal(one, signal.SIGINT if is_postgres else signal.SIGTERM)

    async def pause(self, fault: Fault) -> None:
        """Hold a process and its children still, then let them go on."""
        one = await self._instance(fault.targets[0], fault.draw)
        if one is None or one.pid is None:
            return
        # Kept, because children whose parent is killed meanwhile would not be found again.
        family = family_of(one.pid)
        signal_all(family, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            signal_all(family, signal.SIGCONT)

    async def kill_backend(self, fault: Fault) -> None:
        """SIGKILL one of the backends that serve us: Postgres then ends all and recovers."""
        one = await self._instance("postgres", 0)
        if one is None or one.pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(one.pid).children()
            ours = [child for child in children if _SERVICE_BACKEND in " ".join(child.cmdline())]
            if ours:
                ours[fault.draw % len(ours)].kill()
                self._note_death("postgres backend", one)

    def note_crash(self, kind: str) -> None:
        """A process reached an armed crash point."""
        self.kills[f"{kind} crash point"] += 1

    async def watch(self) -> None:
        """Look when what was killed answers again; runs until it is cancelled."""
        while True:
            with contextlib.suppress(OSError, ValueError):
                self._look({one.name: one for one in self._stack.components()})
            await asyncio.sleep(WATCH_EVERY_S)

    def _look(self, components: dict[str, Component]) -> None:
        waiting = list[_Death]()
        for death in self._deaths:
            now = components.get(death.name)
            if now and now.is_healthy and now.pid not in (None, death.pid):
                took_s = time.monotonic() - death.at
                self.recoveries_s.setdefault(death.kind, []).append(took_s)
            else:
                waiting.append(death)
        self._deaths = waiting
        if not waiting:
            self.all_back.set()

    def _kill(self, kind: str, one: Component | None) -> None:
        if self._signal(one, signal.SIGKILL) and one is not None:
            self._note_death(kind, one)

    def _note_death(self, kind: str, one: Component) -> None:
        self.kills[kind] += 1
        if one.pid is not None and kind in one.name:
            self.all_back.clear()
            self._deaths.append(_Death(kind, one.name, one.pid, time.monotonic()))

    def _signal(self, one: Component | None, number: signal.Signals) -> bool:
        if one is None or one.pid is None:
            return False
        family = family_of(one.pid)
        try:
            os.kill(one.pid, number)
        except ProcessLookupError:
            return False
        # One that is held still hears SIGTERM only when it goes on, and children that are held
        # still do not see that their parent is gone.
        signal_all(family, signal.SIGCONT)
        return True

    async def _instance(self, kind: str, draw: int) -> Component | None:
        """One that runs; waits a little for one, because it may be starting again."""
        deadline = time.monotonic() + WAIT_FOR_PROCESS_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                living = [one for one in self._stack.instances_of(kind) if one.pid is not None]
                if living:
                    return living[draw % len(living)]
            await asyncio.sleep(WATCH_EVERY_S)
        return None
