"""One timer keeps the deadlines of all checks, as `asyncio.timeout` keeps one."""

import asyncio

import pytest

from authz.deadlines import Deadlines
from tests.patience import WAIT_S

LONG_S = 3_600.0


async def _wait_for_ever(deadlines: Deadlines) -> None:
    with deadlines.watch():
        await asyncio.get_running_loop().create_future()


async def test_what_takes_too_long_times_out() -> None:
    deadlines = Deadlines(0.01)
    async with asyncio.timeout(WAIT_S):
        done = await asyncio.gather(
            *(_wait_for_ever(deadlines) for _ in range(20)), return_exceptions=True
        )
    assert {type(one) for one in done} == {TimeoutError}


async def test_the_timer_goes_on_for_what_begins_later() -> None:
    deadlines = Deadlines(0.01)
    async with asyncio.timeout(WAIT_S):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await _wait_for_ever(deadlines)


async def test_what_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines(0.01)
    with deadlines.watch():
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError):
        await _wait_for_ever(deadlines)
    # The first block was not cancelled afterwards, and the second left nothing behind.
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_another_cancellation_stays_one() -> None:
    deadlines = Deadlines(LONG_S)
    task = asyncio.ensure_future(_wait_for_ever(deadlines))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_cancellation_beside_the_deadline_goes_first() -> None:
    deadlines = Deadlines(0.0)
    task = asyncio.ensure_future(_wait_for_ever(deadlines))
    await asyncio.sleep(0)

    def cancel_too() -> None:
        if task.cancelling():
            task.cancel()
        else:
            asyncio.get_running_loop().call_soon(cancel_too)

    cancel_too()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_an_error_of_the_block_passes() -> None:
    deadlines = Deadlines(0.01)

    async def fails() -> None:
        with deadlines.watch():
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise ValueError("planted") from None

    with pytest.raises(ValueError, match="planted"):
        await fails()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
