"""Keeps one component running: starts it, watches it, starts it again."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.supervision import children
from tollkeeper.stack.supervision.component import Component, Drain
from tollkeeper.stack.supervision.logs import bound, last_line
from tollkeeper.stack.supervision.probes import seconds_since
from tollkeeper.stack.supervision.status import State, StatusFile

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
# A component that lived this long has earned a quick restart again.
STEADY_AFTER_S = 10.0
STARTING_PROBE_INTERVAL_S = 0.05
HEALTH_PROBE_INTERVAL_S = 1.0
CANCEL_AGAIN_AFTER_S = 0.2
# Senders that have not noticed the restart by then do not run.
NOTICE_TIMEOUT_S = 5.0

Report = Callable[[str], None]


class Keeper:
    """One component, kept running from `start` until `stop`.

    `fault` never has a result; it has an exception when the keeping itself failed.
    """

    def __init__(self, component: Component, logs: Path, status: StatusFile, report: Report):
        self._component = component
        self._log = logs / f"{component.name}.log"
        self._status = status
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._restarting = asyncio.Lock()
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def name(self) -> str:
        """The name of the component."""
        return self._component.name

    async def start(self) -> None:
        """Start and wait until ready.

        Raises StackError when the component dies or is not ready in time.
        """
        began = time.monotonic()
        await self._bring_up()
        self._report(f"{self._component.name:<10} ready after {seconds_since(began)}")
        self._begin_keeping()

    async def restart(self) -> None:
        """End the process with grace and have another ready in its place.

        Raises StackError when the new process does not get ready; the keeper then starts it again,
        as after any other end.
        """
        async with self._restarting:
            began = time.monotonic()
            if self._keeping is not None:
                await _cancel(self._keeping)
            try:
                if self._component.step_aside is not None and self._is_alive:
                    await self._replace(self._component.step_aside)
                else:
                    await self._end()
                    await self._bring_up()
                # The senders of work must know that the component is ready again. They are other
                # processes: nothing in this one could wake us.
                is_noticed = self._component.is_noticed
                deadline = time.monotonic() + NOTICE_TIMEOUT_S
                while is_noticed and not await is_noticed():
                    if time.monotonic() > deadline:
                        break
                    await asyncio.sleep(STARTING_PROBE_INTERVAL_S)
            finally:
                self._begin_keeping()
            self._report(f"{self._component.name:<10} restarted in {seconds_since(began)}")

    async def stop(self) -> None:
        """End the component and do not start it again."""
        if self._keeping is not None:
            await _cancel(self._keeping)
        if self._process is None:
            return
        self._note(state=State.STOPPING, is_healthy=False)
        await self._end()
        self._note(state=State.STOPPED, pid=None, started_at=None)

    @property
    def _is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _begin_keeping(self) -> None:
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(self._note_fault)

    def _note_fault(self, keeping: asyncio.Task[None]) -> None:
        """Only a fault in the supervisor itself ends the keeping."""
        if not keeping.cancelled() and (error := keeping.exception()) and not self.fault.done():
            self.fault.set_exception(error)

    async def _bring_up(self) -> None:
        process = await self._spawn()
        exit_ = asyncio.create_task(process.wait())
        probing = asyncio.create_task(self._until_ready())
        timeout_s = self._component.start_timeout_s
        try:
            await asyncio.wait(
                {exit_, probing}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not probing.done():
                end = f"was not ready after {timeout_s:.0f} s"
                if process.returncode is not None:
                    end = children.describe_exit(process.returncode)
                raise StackError(
                    f"{self._component.name} {end}; its last log line: {last_line(self._log)} "
                    f"(see {self._log})."
                )
            probing.result()
        finally:
            await _cancel(exit_, probing)

    async def _end(self) -> None:
        if self._process is None:
            return
        if self._component.drain is not None and self._is_alive:
            await self._component.drain()
        await self._stop_process(self._process)

    async def _stop_process(self, process: asyncio.subprocess.Process) -> None:
        component = self._component
        await children.stop(process, component.stop_signal, component.stop_timeout_s)

    async def _replace(self, step_aside: Callable[[], Drain]) -> None:
        """Have a successor ready before the old process is drained and ended."""
        old = self._process
        drain_old = step_aside()
        try:
            await self._bring_up()
        finally:
            # Without a successor the old one has to go too: its place is taken.
            if old is not None:
                try:
                    await drain_old()
                finally:
                    await self._stop_process(old)

    async def _keep(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            end = await self._watch()
            if time.monotonic() - began > STEADY_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            self._note(
                state=State.RESTARTING,
                pid=None,
                started_at=None,
                is_healthy=False,
                restarts=self._status.get(self._component.name).restarts + 1,
                last_exit=end,
            )
            self._report(f"{self._component.name:<10} {end}; starting it again")
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            try:
                await self._spawn()
            except StackError as error:
                self._report(f"{self._component.name:<10} {error}")

    async def _watch(self) -> str:
        """Probe until the process ends; say how it ended."""
        if self._process is None or self._process.returncode is not None:
            return "could not be started"
        exit_ = asyncio.create_task(self._process.wait())
        probing = asyncio.create_task(self._probe_forever())
        try:
            await asyncio.wait({exit_, probing}, return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                probing.result()
            return children.describe_exit(await exit_)
        finally:
            await _cancel(exit_, probing)

    async def _spawn(self) -> asyncio.subprocess.Process:
        component = self._component
        self._process = None
        self._process = await children.spawn(
            component.command, component.environment, self._log, component.death_signal
        )
        self._note(
            state=State.STARTING,
            pid=self._process.pid,
            started_at=time.time(),
            is_healthy=False,
        )
        return self._process

    async def _until_ready(self) -> None:
        # Another process gets ready; nothing in this one could wake us.
        while not await self._answers():  # noqa: ASYNC110
            await asyncio.sleep(STARTING_PROBE_INTERVAL_S)
        self._note(state=State.RUNNING, is_healthy=True)

    async def _answers(self) -> bool:
        """Ask the component. A probe that breaks says no: it must not end the whole stack."""
        try:
            return await self._component.is_ready()
        except asyncio.CancelledError:
            # A library may cancel itself when its connection breaks; nobody asked us to end.
            asking = asyncio.current_task()
            if asking is None or asking.cancelling():
                raise
            return False
        except Exception as error:
            self._report(f"{self._component.name:<10} cannot be asked: {type(error).__name__}")
            return False

    async def _probe_forever(self) -> None:
        await self._until_ready()
        while True:
            await asyncio.sleep(HEALTH_PROBE_INTERVAL_S)
            self._note(is_healthy=await self._answers())
            bound(self._log)

    def _note(self, **changes: object) -> None:
        self._status.update(self._component.name, **changes)


async def _cancel(*tasks: asyncio.Task[None] | asyncio.Task[int]) -> None:
    """Cancel tasks, and return or raise only when they have ended.

    To cancel once is not enough: a library that is cancelled at the moment of its own timeout may
    swallow the cancellation, and a probe would go on for ever.
    """
    was_cancelled = False
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        try:
            await asyncio.wait(running, timeout=CANCEL_AGAIN_AFTER_S)
        except asyncio.CancelledError:
            was_cancelled = True
    await asyncio.gather(*tasks, return_exceptions=True)
    if was_cancelled:
        raise asyncio.CancelledError
