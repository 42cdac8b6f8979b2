"""Compares the books with the upstream's bill, and says since when they agree."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from chaos.stack import ChaosStack
from chaos.upstream import BillRow, read_bill

LOOK_EVERY_S: Final = 0.25
CONNECT_TIMEOUT_S: Final = 20.0
_USAGE: Final = """
    SELECT generation_id, min(recorded_at) AS recorded_at,
           sum(provider_cost_picos)::bigint AS cost_picos,
           count(*) FILTER (WHERE revision = 0) AS firsts,
           (array_agg(source ORDER BY revision))[1] AS source,
           bool_or(kind = 'provisional') AS is_provisional
    FROM usage_records WHERE account_id = $1 GROUP BY generation_id, hold_id"""


@dataclass(frozen=True, slots=True)
class Settled:
    """One settled request. `source` is the way by which it was settled first."""

    generation_id: str | None
    recorded_at: datetime
    cost_picos: int
    firsts: int
    source: str
    is_provisional: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """The bill against the books: counts of requests, and the difference in pico-dollars."""

    billed: int
    unsettled: int
    doubled: int
    provisional: int
    difference_picos: int

    @property
    def is_right(self) -> bool:
        """True if all that was billed is settled once, to the pico-dollar."""
        return not (self.unsettled or self.doubled or self.difference_picos)


class Books:
    """Reads while everything goes on; while Postgres is away nothing is known.

    From the moment of its making all that is billed is one account's.
    """

    def __init__(self, stack: ChaosStack, account_id: str) -> None:
        self._stack = stack
        self._account_id = account_id
        self._rows_before = len(read_bill(stack.bill))

    async def settled(self) -> list[Settled]:
        """Everything settled so far. Raises OSError or PostgresError while Postgres is away."""
        return [Settled(*row) for row in await self._fetch(_USAGE, self._account_id)]

    async def balance(self) -> Balance:
        """Return the state of books and bill. Raises as `settled` does."""
        settled, bill = await self.settled(), self._bill()
        known = {one.generation_id for one in settled}
        return Balance(
            billed=len(bill),
            unsettled=sum(row.generation_id not in known for row in bill),
            doubled=len(settled) - len(known) + sum(one.firsts > 1 for one in settled),
            provisional=sum(one.is_provisional for one in settled),
            difference_picos=sum(one.cost_picos for one in settled)
            - sum(row.cost_picos for row in bill),
        )

    async def sources_between(self, start: datetime, end: datetime) -> Counter[str]:
        """By which way requests were settled in this time."""
        return Counter(one.source for one in await self.settled() if start <= one.recorded_at < end)

    async def wait_settled(self, most_s: float) -> float | None:
        """Until every present row of the bill is settled; after how many seconds, None if never."""
        due = {row.generation_id for row in self._bill()}

        async def is_settled() -> bool:
            return due <= {one.generation_id for one in await self.settled()}

        return await _wait(is_settled, most_s)

    async def wait_ended(self, placed_before: datetime, most_s: float) -> float | None:
        """Until no hold from before is live; after how many seconds, None if never."""

        async def is_ended() -> bool:
            return not await self._fetch(
                "SELECT FROM holds WHERE created_at < $1 LIMIT 1", placed_before
            )

        return await _wait(is_ended, most_s)

    def _bill(self) -> list[BillRow]:
        return read_bill(self._stack.bill)[self._rows_before :]

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._stack.dsn(), timeout=CONNECT_TIMEOUT_S)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()


async def _wait(is_true: Callable[[], Awaitable[bool]], most_s: float) -> float | None:
    began = time.monotonic()
    while time.monotonic() - began < most_s:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
            if await is_true():
                return time.monotonic() - began
        await asyncio.sleep(LOOK_EVERY_S)
    return None
