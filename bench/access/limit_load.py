"""Measures whether a limit holds to the request, under more load than it admits."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from bench.access.doors import OK, Gateway

WINDOW_S: Final = 60.0


@dataclass(slots=True)
class LimitLoad:
    """The result of a load; `admitted_at_s` are the instants of the answers."""

    limit: int
    statuses: Counter[int] = field(default_factory=Counter)
    admitted_at_s: list[float] = field(default_factory=list)

    @property
    def most_in_a_window(self) -> int:
        """The most admitted within any 60 s."""
        instants, most, first = sorted(self.admitted_at_s), 0, 0
        for last, at_s in enumerate(instants):
            while instants[first] <= at_s - WINDOW_S:
                first += 1
            most = max(most, last - first + 1)
        return most

    @property
    def usable(self) -> float:
        """The share of the limit that could be used."""
        return self.most_in_a_window / self.limit


async def overload(
    gateway: Gateway, credential: str, limit: int, connections: int, seconds: float, least: int
) -> LimitLoad:
    """Ask as fast as the answers come, over so many connections, and at least `least` times."""
    load = LimitLoad(limit)
    until_s = time.monotonic() + seconds

    async def work() -> None:
        while time.monotonic() < until_s or load.statuses.total() < least:
            status = await gateway.status(credential)
            load.statuses[status] += 1
            if status == OK:
                load.admitted_at_s.append(time.monotonic())

    await asyncio.gather(*(work() for _ in range(connections)))
    return load
