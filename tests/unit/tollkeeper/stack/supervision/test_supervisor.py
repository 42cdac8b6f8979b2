"""The supervisor with stand-ins for components: order, restarts, and a clean end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.patience import WAIT_S
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.supervision.children import run_to_end
from tollkeeper.stack.supervision.component import Component, Step
from tollkeeper.stack.supervision.status import State, StatusFile, find_status
from tollkeeper.stack.supervision.supervisor import Supervisor

# Says in a file that it is ready, and in another what ended it.
STAND_IN = """
import pathlib, signal, sys, time
mark, stubborn = pathlib.Path(sys.argv[1]), len(sys.argv) > 2
def end(number, frame):
    if not stubborn:
        with (mark.parent / "ends").open("a") as ends: ends.write(mark.name + "\\n")
        mark.unlink()
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
mark.write_text("")
while True: time.sleep(60)
"""


def stand_in(folder: Path, name: str, *extra: str) -> Component:
    mark = folder / name

    async def is_ready() -> bool:
        return mark.exists()

    command = (sys.executable, "-S", "-c", STAND_IN, str(mark), *extra)
    return Component(name, command, is_ready, start_timeout_s=WAIT_S, stop_timeout_s=WAIT_S)


@pytest.fixture
async def supervise(
    tmp_path: Path,
) -> AsyncIterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(*phases: tuple[Component | Step, ...]) -> Supervisor:
        status = StatusFile(tmp_path / "status.json", {})
        supervisor = Supervisor(phases, tmp_path, status, lambda line: None)
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        await supervisor.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - another process changes it.
            await asyncio.sleep(0.02)


async def test_phases_begin_in_order_and_end_in_reverse(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    seen: list[bool] = []

    async def between() -> None:
        seen.append((tmp_path / "first").exists() and not (tmp_path / "second").exists())

    supervisor = supervise(
        (stand_in(tmp_path, "first"),),
        (Step("between", between),),
        (stand_in(tmp_path, "second"),),
    )
    await supervisor.start()
    assert seen == [True]
    status = find_status(tmp_path / "status.json")
    assert status is not None and status.is_healthy
    await supervisor.stop()
    assert (tmp_path / "ends").read_text().split() == ["second", "first"]
    status = find_status(tmp_path / "status.json")
    assert status is not None and status.state is State.STOPPED


async def test_a_component_that_dies_is_started_again_and_counted(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    supervisor = supervise((stand_in(tmp_path, "mortal"),))
    await supervisor.start()

    def one() -> tuple[int | None, int, bool]:
        status = find_status(tmp_path / "status.json")
        assert status is not None
        (mortal,) = status.components
        return mortal.pid, mortal.restarts, mortal.is_healthy

    def restarted(count: int) -> Callable[[], bool]:
        return lambda: one()[1] == count and one()[2]

    first = one()[0]
    assert first is not None
    for count in (1, 2):
        (tmp_path / "mortal").unlink()
        pid = one()[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(restarted(count))
    status = find_status(tmp_path / "status.json")
    assert status is not None and status.components[0].last_exit == "was ended by SIGKILL"
    assert one()[0] != first


async def test_a_probe_that_breaks_says_not_ready_and_ends_nothing(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    mark = tmp_path / "one"
    asked: list[bool] = []

    async def is_ready() -> bool:
        asked.append(mark.exists())
        if len(asked) in (1, 3):
            raise AssertionError("killed at the moment of asking")
        if len(asked) == 2:
            raise asyncio.CancelledError
        return mark.exists()

    component = replace(stand_in(tmp_path, "one"), is_ready=is_ready)
    supervisor = supervise((component,))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    async with asyncio.timeout(WAIT_S):
        while len(asked) < 6:  # noqa: ASYNC110  # another task asks
            await asyncio.sleep(0.05)
    assert not watching.done()
    watching.cancel()


async def test_what_never_gets_ready_is_explained(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    async def never() -> bool:
        return False

    broken = (sys.executable, "-S", "-c", "raise SystemExit('the disk is full')")
    supervisor = supervise((Component("broken", broken, never),))
    with pytest.raises(StackError, match=r"broken ended with exit code 1.*the disk is full"):
        await supervisor.start()
    slow = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
    supervisor = supervise((Component("slow", slow, never, start_timeout_s=0.2),))
    with pytest.raises(StackError, match="slow was not ready"):
        await supervisor.start()
    missing = Component("missing", ("/nonexistent/program",), never)
    with pytest.raises(StackError, match="cannot be started"):
        await supervise((missing,)).start()


async def test_a_probe_that_swallows_its_cancellation_holds_up_no_end(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    is_asked = asyncio.Event()

    async def is_ready() -> bool:
        if not (tmp_path / "one").exists():
            return False
        with suppress(asyncio.CancelledError):
            is_asked.set()
            await asyncio.sleep(0.5)
        return True

    supervisor = supervise((replace(stand_in(tmp_path, "one"), is_ready=is_ready),))
    await supervisor.start()
    is_asked.clear()
    await is_asked.wait()
    async with asyncio.timeout(WAIT_S):
        await supervisor.stop()
    assert (tmp_path / "ends").read_text() == "one\n"


async def test_a_program_that_takes_too_long_is_ended_with_a_sentence(tmp_path: Path) -> None:
    slow = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
    with pytest.raises(StackError, match=r"slow was not done after 0\.2 s \(see .*slow\.log\)"):
        await run_to_end("slow", slow, {}, tmp_path / "slow.log", timeout_s=0.2)


async def test_what_does_not_listen_is_killed(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    stubborn = replace(stand_in(tmp_path, "stubborn", "stubborn"), stop_timeout_s=0.3)
    supervisor = supervise((stubborn,))
    await supervisor.start()
    status = find_status(tmp_path / "status.json")
    assert status is not None
    pid = status.components[0].pid
    await supervisor.stop()
    assert pid is not None and not psutil.pid_exists(pid)


async def test_a_failing_step_ends_the_start(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    def failing() -> Awaitable[None]:
        raise StackError("no")

    supervisor = supervise((stand_in(tmp_path, "first"),), (Step("bad", failing),))
    with pytest.raises(StackError, match="no"):
        await supervisor.start()
    await supervisor.stop()
    assert (tmp_path / "ends").read_text().split() == ["first"]


async def test_a_restart_touches_one_instance_after_the_other(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    supervisor = supervise((stand_in(tmp_path, "one"), stand_in(tmp_path, "one-2")))
    await supervisor.start()
    before = pids(tmp_path)
    said: list[str] = []
    await supervisor.restart("one", said.append)
    after = pids(tmp_path)
    assert not set(before.values()) & set(after.values())
    assert (tmp_path / "ends").read_text().split() == ["one", "one-2"]
    assert [line.split()[0] for line in said] == ["one", "one-2"]
    await supervisor.restart("one-2", said.append)
    assert pids(tmp_path)["one"] == after["one"]
    with pytest.raises(StackError, match=r"no component 'two'; there are one, one-2\."):
        await supervisor.restart("two", said.append)
    # An asked restart is no failure: nothing is counted, and the watch goes on.
    assert restarts(tmp_path) == {"one": 0, "one-2": 0}
    os.kill(pids(tmp_path)["one"], signal.SIGKILL)
    await eventually(lambda: restarts(tmp_path)["one"] == 1)


async def test_a_drain_comes_before_the_signal(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    drained: list[bool] = []

    async def drain() -> None:
        drained.append((tmp_path / "slow").exists())

    supervisor = supervise((replace(stand_in(tmp_path, "slow"), drain=drain),))
    await supervisor.start()
    await supervisor.stop()
    assert drained == [True]
    assert (tmp_path / "ends").read_text() == "slow\n"


async def test_a_successor_is_ready_before_the_old_one_is_drained(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    alive: list[tuple[bool, int]] = []

    def step_aside() -> Callable[[], Awaitable[None]]:
        old = pids(tmp_path)["door"]

        async def drain_old() -> None:
            alive.append((psutil.pid_exists(old), pids(tmp_path)["door"]))

        return drain_old

    supervisor = supervise((replace(stand_in(tmp_path, "door"), step_aside=step_aside),))
    await supervisor.start()
    before = pids(tmp_path)["door"]
    await supervisor.restart("door", lambda line: None)
    assert alive == [(True, pids(tmp_path)["door"])]
    assert before != pids(tmp_path)["door"]


def pids(folder: Path) -> dict[str, int]:
    """The processes as the status file names them."""
    status = find_status(folder / "status.json")
    return {one.component: one.pid or 0 for one in status.components} if status else {}


def restarts(folder: Path) -> dict[str, int]:
    """Return how often each component died, as the status file has it."""
    status = find_status(folder / "status.json")
    return {one.component: one.restarts for one in status.components} if status else {}
