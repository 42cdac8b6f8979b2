"""A small table of the store that is cached in memory and never older than MAX_AGE_S."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from meter.clock import Clock
from meter.errors import StoreUnavailable

RELOAD_AFTER_S: Final = 0.5
MAX_AGE_S: Final = 0.9
LOAD_TIMEOUT_S: Final = 2.0
_MAX_LOADS: Final = 2

T = TypeVar("T")


class Fresh(Generic[T]):
    """The cached result of a loader. Its age counts from the beginning of the load.

    The table is loaded on demand, by one task at a time. Once it is older than RELOAD_AFTER_S, a
    call returns it and reloads it in the background. Once it is older than MAX_AGE_S, calls wait
    for the reload. The age goes on while the process is stopped, so a process that wakes up
    loads the table first.
    """

    def __init__(self, load: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._loaded: tuple[T] | None = None
        self._began_s = -math.inf
        self._loading: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """Return the table. Raises StoreUnavailable where it is too old and cannot be loaded."""
        if self._age_s() > RELOAD_AFTER_S:
            self._start()
        for _ in range(_MAX_LOADS):
            if self._loaded is not None and self._age_s() <= MAX_AGE_S:
                return self._loaded[0]
            await self._wait(self._start())
        if self._loaded is not None and self._age_s() <= MAX_AGE_S:
            return self._loaded[0]
        raise StoreUnavailable("the cached table is too old, and loading it takes too long")

    async def reload(self) -> T:
        """Return the table of a load that begins now or later, however new the present one is."""
        if self._loading is not None:
            await self._wait(self._loading)
        await self._wait(self._start())
        return await self.get()

    async def close(self) -> None:
        """Cancel a load that is under way."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._began_s

    def _start(self) -> "asyncio.Task[None]":
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._run())
            self._loading.add_done_callback(self._end)
        return self._loading

    async def _run(self) -> None:
        began_s = self._clock.monotonic_s()
        self._loaded = (await self._load(),)
        self._began_s = began_s

    def _end(self, done: "asyncio.Task[None]") -> None:
        self._loading = None
        if not done.cancelled():
            # Without a waiter, nobody reads the exception, and asyncio would log an error.
            done.exception()

    @staticmethod
    async def _wait(load: "asyncio.Task[None]") -> None:
        """Wait for a load; a waiter that is cancelled does not cancel the load for the others."""
        done, _ = await asyncio.wait({load}, timeout=LOAD_TIMEOUT_S)
        if not done:
            raise StoreUnavailable(f"the table was not loaded within {LOAD_TIMEOUT_S} s")
        load.result()
