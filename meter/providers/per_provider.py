"""Runs a piece of work for every enabled provider, each in a task of its own.

A provider that does not answer keeps only its own task waiting.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from meter.providers.provider import Provider
from meter.providers.registry import ProviderRegistry


async def for_each_provider(
    providers: ProviderRegistry, name: str, work: Callable[[Provider], Coroutine[Any, Any, None]]
) -> None:
    """Run `work` for each enabled provider until cancelled.

    The work of a provider that is changed begins anew; that of one that is disabled or deleted
    ends. An exception in one of them ends all, and is raised.
    """
    tasks: dict[Provider, asyncio.Task[Any]] = {}
    try:
        while True:
            changed = providers.changed
            wanted = {one for one in providers.all if one.is_enabled}
            for provider in tasks.keys() - wanted:
                task = tasks.pop(provider)
                task.cancel()
                await asyncio.wait({task})
            for provider in wanted - tasks.keys():
                tasks[provider] = asyncio.create_task(work(provider), name=f"{name} {provider.id}")
            waiting: asyncio.Task[Any] = asyncio.ensure_future(changed.wait())
            try:
                done, _ = await asyncio.wait(
                    {waiting, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                waiting.cancel()
            for task in done - {waiting}:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended on its own")
    finally:
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())
