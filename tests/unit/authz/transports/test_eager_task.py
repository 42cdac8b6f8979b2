"""An eager task does to a coroutine what a task of asyncio does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.transports.eager_task import EagerTask

Log = list[object]
Step = Callable[[Log], Awaitable[None]]
Runner = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None] | EagerTask"]


async def _turn(log: Log) -> None:
    await asyncio.sleep(0)


async def _future(log: Log) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.call_soon(_settle, future, 7)
    log.append(await future)


def _settle(future: "asyncio.Future[int]", result: int | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


async def _failing_future(log: Log) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.call_soon(_settle, future, ValueError("planted"))
    try:
        await future
    except ValueError as error:
        log.append(str(error))


async def _done_future(log: Log) -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(1)
    log.append(await future)


async def _inner_task(log: Log) -> None:
    await asyncio.ensure_future(_turn(log))
    log.append("inner")


async def _shielded(log: Log) -> None:
    inner = asyncio.ensure_future(_two_turns(log))
    try:
        await asyncio.shield(inner)
    except asyncio.CancelledError:
        await inner
        log.append("shielded")
        raise


async def _two_turns(log: Log) -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def _times_out(log: Log) -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        log.append("late")


async def _in_time(log: Log) -> None:
    async with asyncio.timeout(3_600):
        await asyncio.sleep(0)


async def _group(log: Log) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_turn(log))
        group.create_task(_two_turns(log))
    log.append("group")


async def _keeps_on(log: Log) -> None:
    """Catch one cancellation, as code does that has something to finish."""
    task = asyncio.current_task()
    assert task is not None
    try:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        log.append(("kept on", task.cancelling(), task.uncancel()))


async def _cancels_itself(log: Log) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        log.append(("itself", task.uncancel()))


STEPS: list[Step] = [
    *(_turn, _future, _failing_future, _done_future, _inner_task, _shielded, _times_out),
    *(_in_time, _group, _keeps_on, _cancels_itself),
]


async def _perform(steps: list[Step], log: Log) -> None:
    try:
        for number, step in enumerate(steps):
            await step(log)
            log.append(number)
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


def _asyncio_task(coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    return asyncio.ensure_future(coroutine)


def _eager_task(coroutine: Coroutine[Any, Any, None]) -> EagerTask:
    loop = asyncio.get_running_loop()
    task = EagerTask(coroutine, loop)
    # In the next turn, as a task of asyncio begins, so that the turns can be compared.
    loop.call_soon(task.begin)
    return task


async def _observe(run: Runner, steps: list[Step], cancel_after: list[int]) -> Log:
    """Run the steps, cancel after so many turns of the loop, and return what happened."""
    log: Log = []
    task = run(_perform(steps, log))
    for turns in cancel_after:
        for _ in range(turns):
            await asyncio.sleep(0)
        log.append(("cancel", task.cancel()))
    for _ in range(1_000):
        if task.done():
            break
        # Timers that are due need a turn that looks at the clock.
        await asyncio.sleep(0.0005)
    assert task.done()
    if isinstance(task, asyncio.Task):
        await asyncio.wait({task})
    else:
        await task.ended()
    return log


@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=6),
    # Not while a timer runs: when it fires depends on the clock.
    cancel_after=st.lists(st.integers(1, 6), max_size=2),
)
def test_does_what_a_task_does(steps: list[Step], cancel_after: list[int]) -> None:
    if _times_out in steps:
        cancel_after = []

    async def compare() -> None:
        expected = await _observe(_asyncio_task, steps, cancel_after)
        assert await _observe(_eager_task, steps, cancel_after) == expected

    asyncio.run(compare())


async def _begun(coroutine: Coroutine[Any, Any, None]) -> EagerTask:
    """Begin a task from the event loop, as a transport does."""
    loop = asyncio.get_running_loop()
    task = EagerTask(coroutine, loop)
    loop.call_soon(task.begin)
    await asyncio.sleep(0)
    return task


async def test_runs_to_its_first_wait_at_once() -> None:
    seen: Log = []

    async def check() -> None:
        seen.append("began")
        await asyncio.get_running_loop().create_future()

    task = EagerTask(check(), asyncio.get_running_loop())

    def begin() -> None:
        task.begin()
        seen.append("returned")

    asyncio.get_running_loop().call_soon(begin)
    await asyncio.sleep(0)
    assert seen == ["began", "returned"]
    assert task.cancel()
    await task.ended()
    assert not task.cancel()


async def test_an_error_ends_it_and_reaches_the_loop() -> None:
    async def fault() -> None:
        raise RuntimeError("planted")

    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
    task = await _begun(fault())
    await task.ended()
    assert [str(error) for error in told] == ["planted"]


async def test_is_the_current_task_of_its_coroutine_alone() -> None:
    seen: Log = []

    async def check() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    outer = asyncio.current_task()
    task = await _begun(check())
    assert asyncio.current_task() is outer
    await task.ended()
    assert seen == [task, task]


async def test_is_not_begun_within_another_task() -> None:
    async def check() -> None:
        """Do nothing."""

    coroutine = check()
    with pytest.raises(RuntimeError):
        EagerTask(coroutine, asyncio.get_running_loop()).begin()
    coroutine.close()
