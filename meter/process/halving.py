"""Batches in which one item may be faulty."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_halves(
    batch: list[Item],
    attempt: Callable[[list[Item]], Awaitable[Result]],
    give_up: Callable[[Item, Exception], Awaitable[Result]],
    divisive: type[Exception] = Exception,
    passing: tuple[type[Exception], ...] = (),
) -> list[Result]:
    """Attempt a batch whole; while that fails, attempt its halves, so that a faulty item is alone.

    `give_up` is awaited with each item that fails alone, while its exception is being handled.
    Returns the results of both in the order of the batch. Raises exceptions that are not
    `divisive`, and those that are `passing`: another part of the batch would meet them too.
    """
    try:
        return [await attempt(batch)]
    except passing:
        raise
    except divisive as error:
        if len(batch) == 1:
            return [await give_up(batch[0], error)]
    middle = len(batch) // 2
    return [
        *await in_halves(batch[:middle], attempt, give_up, divisive, passing),
        *await in_halves(batch[middle:], attempt, give_up, divisive, passing),
    ]
