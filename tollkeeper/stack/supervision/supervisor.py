"""All components together: started in order, kept alive, ended in reverse."""

import asyncio
import time
from pathlib import Path

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.supervision.component import Component, Phase, Step
from tollkeeper.stack.supervision.keeper import Keeper, Report
from tollkeeper.stack.supervision.probes import seconds_since
from tollkeeper.stack.supervision.status import State, StatusFile


class Supervisor:
    """Runs phases of components and steps; each phase is ready before the next begins."""

    def __init__(self, phases: tuple[Phase, ...], logs: Path, status: StatusFile, report: Report):
        self._phases = phases
        self._logs = logs
        self._status = status
        self._report = report
        self._started: list[list[Keeper]] = []
        # Two restarts at the same time could stop both instances of a kind.
        self._restarting = asyncio.Lock()

    async def start(self) -> None:
        """Bring everything up.

        Raises StackError at the first thing that fails; call `stop` then.
        """
        self._status.expect(
            [one.name for phase in self._phases for one in phase if isinstance(one, Component)]
        )
        for phase in self._phases:
            keepers: list[Keeper] = []
            self._started.append(keepers)
            try:
                async with asyncio.TaskGroup() as group:
                    for one in phase:
                        group.create_task(self._begin(one, keepers))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
        self._status.enter(State.RUNNING)

    async def watch(self) -> None:
        """Return never; raise what went wrong in the supervisor itself, if anything does."""
        await asyncio.gather(*(keeper.fault for keeper in self._keepers))

    async def restart(self, name: str, report: Report) -> None:
        """Restart a component, or all instances of one, each ready before the next is touched.

        Raises StackError when there is none of that name, and when one does not come back.
        """
        # `authz` names every instance of authz, `authz-2` only that one.
        chosen = []
        for keeper in self._keepers:
            kind, _, number = keeper.name.rpartition("-")
            if name in (keeper.name, kind if number.isdigit() else keeper.name):
                chosen.append(keeper)
        if not chosen:
            known = ", ".join(keeper.name for keeper in self._keepers)
            raise StackError(f"There is no component {name!r}; there are {known}.")
        async with self._restarting:
            for keeper in chosen:
                report(f"{keeper.name:<10} restarting ...")
                await keeper.restart()

    @property
    def _keepers(self) -> list[Keeper]:
        return [keeper for phase in self._started for keeper in phase]

    async def stop(self) -> None:
        """End everything that was started, last phase first."""
        self._status.enter(State.STOPPING)
        while self._started:
            await asyncio.gather(*(keeper.stop() for keeper in self._started.pop()))
        self._status.enter(State.STOPPED)

    async def _begin(self, one: Component | Step, keepers: list[Keeper]) -> None:
        if isinstance(one, Component):
            keeper = Keeper(one, self._logs, self._status, self._report)
            keepers.append(keeper)
            await keeper.start()
            return
        began = time.monotonic()
        await one.run()
        self._report(f"{one.name:<10} done after {seconds_since(began)}")
