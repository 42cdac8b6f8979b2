"""Measures the usage records that a process settles in a second, and their CPU, by ledger length.

CPU says more than the rate where other work shares the machine.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg

from bench.processes import sessions_cpu_ns
from meter.ingest.batcher import BATCH_LIMIT
from meter.postgres.pool import KEYED_SESSION, PostgresPool, open_pool
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Observation
from tests import servers
from tests.books import USD, Books, observed
from tollkeeper.stack.servers.postgres import PostgresServer

PAYERS: Final = 200
RECORDS_PER_ROUND: Final = 4_000
ROUNDS: Final = 5

# Past settlements as they would stand there, over the last months; each has three entries.
_HISTORY: Final = """
    INSERT INTO settlements (
        id, placed_at, batch, recorded_at, started_at, price_id, held_picos, flat_cost_picos,
        max_tokens, customer_picos, provider_picos, revenue_picos, prompt_tokens,
        completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, markup_bps,
        latency_ms, status_code, is_streaming, account_id, credential_id, model_id, endpoint,
        response_flags, price_source, source)
    SELECT gen_random_uuid(), at, 0, at, at, 1, 9, 0, 100, -3, 2, 1, 10, 20, 0, 0, 0, 5000, 100,
           200, false, 'payer' || (n % $2), 'c', 'm', 'chat_completions', '', 'provider', 'stream'
    FROM (SELECT n, now() - n * interval '90 days' / $1 AS at
          FROM generate_series(1, $1::integer) AS n) past
"""

_MONTH: Final = """
    SELECT make_month((date_trunc('month', now() AT TIME ZONE 'UTC')
                       - make_interval(months => $1::integer))::date)
"""


@dataclass(frozen=True, slots=True)
class SettledRound:
    """Records a second, and CPU microseconds of a record in this process and in Postgres."""

    per_second: float
    meter_us: float
    postgres_us: float


def settle_rates(
    histories: tuple[int, ...], say: Callable[[str], None]
) -> dict[int, list[SettledRound]]:
    """Rounds by number of ledger entries; rounds of different ledgers take turns."""
    with _database_server() as server:
        return servers.run_in_thread(lambda: _measure(server, histories, say))


@contextmanager
def _database_server() -> Iterator[PostgresServer]:
    with (
        tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp") as root,
        servers.postgres_running(Path(root)) as server,
    ):
        servers.run_in_thread(lambda: servers.make_template(server))
        yield server


async def _measure(
    server: PostgresServer, histories: tuple[int, ...], say: Callable[[str], None]
) -> dict[int, list[SettledRound]]:
    ledgers: dict[int, _Ledger] = {}
    for entries in histories:
        began_s = time.perf_counter()
        ledgers[entries] = await _Ledger.with_history(server, entries)
        say(f"filled a ledger of {entries:,} entries in {time.perf_counter() - began_s:.0f} s")
    rounds: dict[int, list[SettledRound]] = {entries: [] for entries in histories}
    for _ in range(ROUNDS):
        for entries, ledger in ledgers.items():
            rounds[entries].append(await ledger.settle_round())
            say(f"{entries:,} entries: {rounds[entries][-1]}")
    for ledger in ledgers.values():
        await ledger.close()
    return rounds


class _Ledger:
    def __init__(self, pool: PostgresPool, books: Books) -> None:
        self._pool = pool
        self._books = books
        self._settlements = PostgresSettlementStore(pool)
        self._round = 0

    @classmethod
    async def with_history(cls, server: PostgresServer, entries: int) -> "_Ledger":
        """A fresh database whose ledger has this many entries already."""
        database = await servers.clone_template(server)
        pool = await open_pool(database.service_dsn, 4, KEYED_SESSION)
        # The pool's statements are short by rule, and only an owner may write history.
        connection = await asyncpg.connect(database.owner_dsn)
        for months in range(4):
            await connection.execute(_MONTH, months)
        await connection.execute(_HISTORY, entries // 3, PAYERS)
        await connection.close()
        return cls(pool, await Books.open(pool))

    async def close(self) -> None:
        """Give every connection back."""
        await self._books.holds.close()
        await self._pool.close()

    async def settle_round(self) -> SettledRound:
        """Place holds, then measure only their settlement."""
        endings = await self._held()
        postgres_ns = await sessions_cpu_ns(self._pool)
        meter_s = time.process_time()
        began_s = time.perf_counter()
        for start in range(0, len(endings), BATCH_LIMIT):
            await self._settlements.settle(endings[start : start + BATCH_LIMIT])
        took_s = time.perf_counter() - began_s
        meter_s = time.process_time() - meter_s
        postgres_ns = await sessions_cpu_ns(self._pool) - postgres_ns
        records = len(endings)
        return SettledRound(
            round(records / took_s),
            round(meter_s / records * 1e6, 1),
            round(postgres_ns / records / 1e3, 1),
        )

    async def _held(self) -> list[Observation]:
        self._round += 1
        payers = [
            await self._books.payer(f"payer{self._round}-{n}", 100 * USD) for n in range(PAYERS)
        ]
        hold_ids = await asyncio.gather(
            *(
                self._books.held(payers[n % PAYERS], USD // 1000, markup_bps=4_000)
                for n in range(RECORDS_PER_ROUND)
            )
        )
        ending = observed(hold_ids[0], "0.0003")
        return [replace(ending, hold_id=hold_id) for hold_id in hold_ids]
