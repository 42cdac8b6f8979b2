"""Measures for how long revoked credentials are still let in, at every door, under load."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.access.administrator import Administrator, Credential
from bench.access.doors import Door

ASK_EVERY_S: Final = 0.03
# Credentials of a batch end at different moments of a cache's life.
SPREAD_S: Final = 0.9
# A credential is asked about until a request that was sent so long after its end is refused.
WATCHED_S: Final = 1.1

Say = Callable[[str], None]


@dataclass(slots=True)
class Watch:
    """The answers that one credential got at one door; instants are of the monotonic clock."""

    credential: Credential
    door: str
    ended_at_s: float | None = None
    was_let_in: bool = False
    let_in_until_s: float = 0.0
    refused_at_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def window_s(self) -> float:
        """The time after its end at which a request was still let in."""
        assert self.ended_at_s is not None
        return max(0.0, self.let_in_until_s - self.ended_at_s)

    @property
    def is_over(self) -> bool:
        """True if a request was refused that was sent WATCHED_S after the end."""
        return self.ended_at_s is not None and self.refused_at_s - self.ended_at_s >= WATCHED_S


@dataclass(frozen=True, slots=True)
class Windows:
    """The measurements of a campaign."""

    watches: list[Watch]

    def row(self, door: str) -> dict[str, float | int]:
        """Revocations seen at a door, and the window's p50, p99 and most, in milliseconds."""
        found = sorted(watch.window_s for watch in self.watches if watch.door == door)
        return {
            "revocations": len(found),
            "p50_ms": round(found[len(found) // 2] * 1000),
            "p99_ms": round(found[min(len(found) - 1, int(len(found) * 0.99))] * 1000),
            "most_ms": round(found[-1] * 1000),
        }


async def measure_windows(
    administrator: Administrator,
    doors: dict[str, Door],
    count: int,
    at_once: int,
    seed: int,
    say: Say,
) -> Windows:
    """Revoke `count` credentials, so many at a time, each watched at every door."""
    chosen = random.Random(seed)
    watches: list[Watch] = []
    await administrator.open_account("revoked")
    for begin in range(0, count, at_once):
        credentials = await asyncio.gather(
            *(_make(administrator, number) for number in range(begin, min(count, begin + at_once)))
        )
        batch = [Watch(credential, door) for credential in credentials for door in doors]
        asking = [asyncio.create_task(_ask(watch, doors[watch.door])) for watch in batch]
        while not all(watch.was_let_in for watch in batch):  # noqa: ASYNC110 - many tasks bring it about.
            await asyncio.sleep(ASK_EVERY_S)
        await asyncio.gather(
            *(_end(administrator, one, batch, chosen.uniform(0, SPREAD_S)) for one in credentials)
        )
        while not all(watch.is_over for watch in batch):  # noqa: ASYNC110 - many tasks bring it about.
            await asyncio.sleep(ASK_EVERY_S)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        watches += batch
        say(f"{min(count, begin + at_once)} of {count} revoked")
    return Windows(watches)


def _make(administrator: Administrator, number: int) -> Awaitable[Credential]:
    if number % 3 == 0:
        return administrator.key("revoked")
    return (
        administrator.jwt("revoked")
        if number % 3 == 1
        else administrator.suspendable(f"suspended-{number}")
    )


async def _end(
    administrator: Administrator, credential: Credential, batch: Sequence[Watch], after_s: float
) -> None:
    await asyncio.sleep(after_s)
    await administrator.ask(*credential.ending)
    ended_at_s = time.monotonic()
    for watch in batch:
        if watch.credential is credential:
            watch.ended_at_s = ended_at_s


async def _ask(watch: Watch, door: Door) -> None:
    while True:
        asked_at_s = time.monotonic()
        try:
            is_let_in = await door.lets_in(watch.credential.text)
        except Exception as error:
            watch.failures.append(type(error).__name__)
        else:
            if is_let_in:
                watch.was_let_in = True
                # What was asked before the end may be answered after it.
                watch.let_in_until_s = asked_at_s
            else:
                watch.refused_at_s = asked_at_s
        await asyncio.sleep(ASK_EVERY_S)
