"""`python -m bench.wal`: bytes of write-ahead log for a request that is held and settled.

The records are read from the log itself (`pg_walinspect`) and counted by relation. A first round
touches the same pages before, so that the images of whole pages, which follow a checkpoint, are
apart. Requests of one account share the rows that a batch changes, so both forms are measured.
"""

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg

from meter.holds.hold import HoldPlaced
from meter.postgres.pool import KEYED_SESSION, open_pool
from meter.settlement.settlement_store import PostgresSettlementStore
from tests import servers
from tests.books import USD, Books, Payer, observed
from tollkeeper.stack.servers.postgres import SUPERUSER, PostgresServer

REQUESTS: Final = 2_000
ACCOUNTS: Final = (1, 50)
# The average at 16 connections, and what a meter settles at once at 2,000 requests a second.
HELD_AT_ONCE: Final = 4
SETTLED_AT_ONCE: Final = 200

# A record counts for the relation of its first block; one without blocks has none.
_PARTS: Final = """
    SELECT coalesce(c.relname, '') AS relation, r.resource_manager || ' ' || r.record_type AS kind,
           count(*) AS records, sum(r.record_length - r.fpi_length)::bigint AS bytes,
           sum(r.fpi_length)::bigint AS image_bytes
    FROM pg_get_wal_records_info($1, $2) r
    LEFT JOIN pg_get_wal_block_info($1, $2) b ON b.start_lsn = r.start_lsn AND b.block_id = 0
    LEFT JOIN pg_class c ON pg_relation_filenode(c.oid) = b.relfilenode
    GROUP BY 1, 2 ORDER BY 4 DESC
"""


@dataclass(frozen=True, slots=True)
class Part:
    """Records of one kind about one relation: their number and their bytes, for each request."""

    phase: str
    relation: str
    kind: str
    records: float
    record_bytes: float
    image_bytes: float


class _Log:
    def __init__(self, watcher: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._watcher = watcher

    async def position(self) -> int:
        return int(await self._watcher.fetchval("SELECT pg_current_wal_insert_lsn()"))

    async def parts(self, phase: str, begin: int, end: int) -> list[Part]:
        return [
            Part(
                phase,
                row["relation"],
                row["kind"],
                row["records"] / REQUESTS,
                row["bytes"] / REQUESTS,
                row["image_bytes"] / REQUESTS,
            )
            for row in await self._watcher.fetch(_PARTS, begin, end)
        ]


async def measure_wal(server: PostgresServer, accounts: int) -> list[Part]:
    """Return what holding and settling requests of so many accounts writes, the most first."""
    database = await servers.clone_template(server)
    watcher = await asyncpg.connect(server.dsn(SUPERUSER, database.name))
    await watcher.execute("CREATE EXTENSION pg_walinspect")
    log = _Log(watcher)
    pool = await open_pool(database.service_dsn, 4, KEYED_SESSION)
    books = await Books.open(pool)
    settlements = PostgresSettlementStore(pool)
    payers = [await books.payer(f"user-{n:06}", 10**6 * USD) for n in range(accounts)]
    await _settle(settlements, await _hold(books, payers))
    begin = await log.position()
    hold_ids = await _hold(books, payers)
    held = await log.position()
    await _settle(settlements, hold_ids)
    parts = await log.parts("hold", begin, held)
    parts += await log.parts("settle", held, await log.position())
    await books.holds.close()
    await pool.close()
    await watcher.close()
    return parts


async def _hold(books: Books, payers: list[Payer]) -> list[uuid.UUID]:
    hold_ids: list[uuid.UUID] = []
    for start in range(0, REQUESTS, HELD_AT_ONCE):
        asked = [
            replace(
                books.request(payers[n % len(payers)], USD // 1000, 600_000, 100, 100, 4_000),
                request_id=uuid.uuid4(),
            )
            for n in range(start, start + HELD_AT_ONCE)
        ]
        answers = await asyncio.gather(*map(books.holds.place, asked))
        assert all(isinstance(answer, HoldPlaced) for answer in answers), answers
        hold_ids += [one.hold_id for one in asked]
    return hold_ids


async def _settle(settlements: PostgresSettlementStore, hold_ids: list[uuid.UUID]) -> None:
    for start in range(0, REQUESTS, SETTLED_AT_ONCE):
        batch = [
            observed(hold_id, "0.0003", generation_id=f"gen-1764500000-{hold_id.hex[:20]}")
            for hold_id in hold_ids[start : start + SETTLED_AT_ONCE]
        ]
        (changes,) = await settlements.settle(batch)
        assert len(changes.ordinary) == len(batch)


def totals(parts: Iterable[Part]) -> dict[str, float]:
    """Return the bytes for a request of each phase, images of pages left out."""
    sums: dict[str, float] = {}
    for part in parts:
        sums[part.phase] = sums.get(part.phase, 0.0) + part.record_bytes
    return sums


def main() -> int:
    """Print the parts of the log, and their sums."""
    argparse.ArgumentParser(prog="python -m bench.wal", description=__doc__).parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tkw-", dir="/tmp") as folder,
        servers.postgres_running(Path(folder)) as server,
    ):
        servers.run_in_thread(lambda: servers.make_template(server))
        for accounts in ACCOUNTS:
            parts = servers.run_in_thread(partial(measure_wal, server, accounts))
            _print(accounts, parts)
    return 0


def _print(accounts: int, parts: list[Part]) -> None:
    print(f"\naccounts: {accounts}\nphase  | relation | record | records | bytes | images")
    for part in parts:
        if part.record_bytes + part.image_bytes >= 1:
            print(
                f"{part.phase:<6} | {part.relation} | {part.kind} | {part.records:.3f} | "
                f"{part.record_bytes:.1f} | {part.image_bytes:.1f}"
            )
    sums = totals(parts)
    words = ", ".join(f"{phase} {sums[phase]:.0f}" for phase in sums)
    print(f"bytes a request: {words}, together {sum(sums.values()):.0f}")


if __name__ == "__main__":
    sys.exit(main())
