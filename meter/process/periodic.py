"""Runs work through outages: once until it succeeds, or at intervals."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog

Result = TypeVar("Result")
Sleep = Callable[[float], Awaitable[object]]

_log = structlog.get_logger(__name__)


async def until_done(
    name: str,
    step: Callable[[], Awaitable[Result]],
    retry_s: float,
    outages: tuple[type[Exception], ...],
    *,
    most_retry_s: float | None = None,
    on_outage: Callable[[Exception], None] | None = None,
    sleep: Sleep = asyncio.sleep,
) -> Result:
    """Return the result of a step that is tried again for as long as it raises an outage.

    The pause before the next attempt is `retry_s`; with `most_retry_s` it doubles up to there. An
    outage is logged as `<name>_waits` when it begins and as `<name>_resumed` when it is over;
    `on_outage` is called for every failed attempt, so that a caller can count them. Any other
    exception is raised.
    """
    failures = 0
    while True:
        try:
            result = await step()
        except outages as error:
            if not failures:
                _log.warning(f"{name}_waits", reason=str(error), retry_in_s=retry_s)
            failures += 1
            if on_outage is not None:
                on_outage(error)
        else:
            if failures:
                _log.info(f"{name}_resumed", failures=failures)
            return result
        await sleep(retry_s)
        if most_retry_s is not None:
            retry_s = min(retry_s * 2, most_retry_s)


async def periodic(
    name: str,
    step: Callable[[], Awaitable[float | None]],
    every_s: float,
    retry_s: float,
    outages: tuple[type[Exception], ...],
    *,
    first_after_s: float = 0.0,
    most_retry_s: float | None = None,
    on_outage: Callable[[Exception], None] | None = None,
    sleep: Sleep = asyncio.sleep,
) -> NoReturn:
    """Run a step again and again until cancelled; outages are logged and waited out.

    A step may return the seconds until the next one; None means `every_s`. The first step comes
    after `first_after_s`. The other parameters are those of `until_done`. An exception that is no
    outage ends the work, and with it the process.
    """
    await sleep(first_after_s)
    while True:
        pause_s = await until_done(
            name,
            step,
            retry_s,
            outages,
            most_retry_s=most_retry_s,
            on_outage=on_outage,
            sleep=sleep,
        )
        await sleep(every_s if pause_s is None else pause_s)
