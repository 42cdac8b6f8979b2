"""Waiting until nothing moves any more."""

import asyncio
import contextlib
import time
from typing import Final

import asyncpg

from chaos.stack import ChaosStack

LOOK_EVERY_S: Final = 0.5
STILL_FOR_S: Final = 3.0
CONNECT_TIMEOUT_S: Final = 5.0
_MOVING: Final = """
    SELECT (SELECT count(*) FROM holds),
           (SELECT count(*) FROM lookups WHERE NOT is_decided
               -- A record of 0 is asked for again: the first time after 15 s.
               OR (reason = 'zero_record'
                   AND created_at > clock_timestamp() - interval '45 s')),
           (SELECT count(*) FROM usage_records),
           (SELECT count(*) FROM postings)"""


async def wait_quiet(stack: ChaosStack, most_s: float) -> float:
    """Until no hold is live, nothing is looked up and the books stand still; never longer.

    Returns how many seconds it took.
    """
    began, still_since, before = time.monotonic(), time.monotonic(), tuple[int, ...]()
    while time.monotonic() - began < most_s:
        now = await _moving(stack)
        if now != before or any(now[:2]) or not _is_well(stack):
            still_since, before = time.monotonic(), now
        elif time.monotonic() - still_since >= STILL_FOR_S:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return time.monotonic() - began


async def _moving(stack: ChaosStack) -> tuple[int, ...]:
    """Live holds, waiting look-ups, usage records, postings; ones while nobody can be asked."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
        connection = await asyncpg.connect(stack.dsn(), timeout=CONNECT_TIMEOUT_S)
        try:
            return tuple(await connection.fetchrow(_MOVING) or ())
        finally:
            await connection.close()
    return (1, 1, 0, 0)


def _is_well(stack: ChaosStack) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return stack.is_well()
    return False
