"""Places rounds of holds with the code of the clone on the path, and measures their cost.

`bench.holding` runs this file in a process of its own for each clone. It uses only names that have
been in every clone for long.
"""

import asyncio
import json
import sys
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import asyncpg

from meter.holds.hold import HoldPlaced, HoldRequest
from meter.postgres.migrate import migrate
from meter.postgres.pool import KEYED_SESSION, open_pool
from tests.books import USD, Books, Payer

PAYERS: Final = 64
# Accounts by how many a batch has, and whether their keys have budgets of the day and the month.
FORMS: Final = ("many", "one", "budgets")
_BUDGETS: Final = "UPDATE credentials SET budget_day_picos = $1, budget_month_picos = $1"
_FORGET: Final = (
    "TRUNCATE holds",
    "UPDATE accounts SET held_picos = 0",
    "DELETE FROM spending",
    "VACUUM accounts",
    "VACUUM spending",
)
_BACKENDS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
      AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class Round:
    """CPU of Postgres and of its client for a batch, and bytes of write-ahead log for a hold."""

    server_us: float
    client_us: float
    wal_bytes: float


class Rounds:
    """A database with some accounts, in which holds are placed and forgotten."""

    def __init__(self, watcher: "asyncpg.Connection[asyncpg.Record]", books: Books) -> None:
        self._watcher = watcher
        self._books = books
        self._payers: list[Payer] = []

    async def fill(self) -> None:
        """Make the accounts, with credit for any number of holds."""
        self._payers = [await self._books.payer(f"payer{n}", 10**6 * USD) for n in range(PAYERS)]

    async def place(self, form: str, size: int, batches: int) -> Round:
        """Place batches of a size, one after the other."""
        await self._watcher.execute(_BUDGETS, 10**6 * USD if form == "budgets" else None)
        asked = [
            [
                self._request(0 if form == "one" else start + n, form == "budgets")
                for n in range(size)
            ]
            for start in range(batches)
        ]
        # The first call of a process connects.
        await self._place_all(asked[0])
        await self._forget()
        for number, batch in enumerate(asked):
            asked[number] = [replace(one, hold_id=self._request(0).hold_id) for one in batch]
        written = await self._watcher.fetchval("SELECT pg_current_wal_insert_lsn()")
        pids = [row["pid"] for row in await self._watcher.fetch(_BACKENDS)]
        server_ns, client_ns = _cpu_ns(pids), time.process_time_ns()
        for batch in asked:
            await self._place_all(batch)
        client_ns, server_ns = time.process_time_ns() - client_ns, _cpu_ns(pids) - server_ns
        wal_bytes = await self._watcher.fetchval(
            "SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", written
        )
        await self._forget()
        return Round(
            server_ns / batches / 1000, client_ns / batches / 1000, int(wal_bytes) / batches / size
        )

    def _request(self, number: int, has_budget: bool = False) -> HoldRequest:
        asked = self._books.request(
            self._payers[number % PAYERS], 50_000_000, 600_000, min_tokens=100, max_tokens=100
        )
        changes: dict[str, Any] = {"request_id": uuid.uuid4()}
        # Older clones know no such hint.
        if hasattr(asked, "has_budget"):
            changes["has_budget"] = has_budget
        return replace(asked, **changes)

    async def _place_all(self, batch: list[HoldRequest]) -> None:
        answers = await asyncio.gather(*(self._books.holds.place(one) for one in batch))
        assert all(isinstance(answer, HoldPlaced) for answer in answers), answers

    async def _forget(self) -> None:
        for statement in _FORGET:
            await self._watcher.execute(statement)


def _cpu_ns(pids: list[int]) -> int:
    """CPU time of processes so far: the scheduler counts nanoseconds, `times` only ticks."""
    total_ns = 0
    for pid in pids:
        total_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total_ns


async def _serve(owner_dsn: str, service_dsn: str, superuser_dsn: str) -> None:
    await migrate(owner_dsn)
    watcher = await asyncpg.connect(superuser_dsn)
    pool = await open_pool(service_dsn, 4, KEYED_SESSION)
    rounds = Rounds(watcher, await Books.open(pool))
    await rounds.fill()
    while line := await asyncio.to_thread(sys.stdin.readline):
        form, size, batches = json.loads(line)
        print(json.dumps(asdict(await rounds.place(form, size, batches))), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
