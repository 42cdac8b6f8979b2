"""`python -m bench.booking`: CPU of Postgres and of the meter for a request that is booked.

Holds are placed in batches of four. Then the meter's own parts read the stream and the file with
the ends of these requests, and settle them. Both figures are the least of many short rounds, in
units of work that is measured in turn with them: of a piece of Python (`calibration.py`), and of a
piece of SQL in the same Postgres. Commits do not wait for the disk here.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from bench.calibration import unit_us
from bench.processes import sessions_cpu_ns
from bench.reading import LogReaders
from chaos.replayed import message_from_lines
from meter.holds.hold import HoldPlaced
from meter.postgres.pool import KEYED_SESSION, PostgresPool, open_pool
from meter.settlement.settlement_store import PostgresSettlementStore
from tests import servers
from tests.books import USD, Books, Payer
from tests.log_lines import line

ROUNDS: Final = 16
REQUESTS: Final = 200
HELD_AT_ONCE: Final = 4
_SESSION: Final = {**KEYED_SESSION, "synchronous_commit": "off"}
_SQL_UNITS: Final = 100
# What booking does to rows, in a table of its own: a slower processor, or caches that others fill,
# make both slower alike.
_SQL_UNIT: Final = f"""
    DO $$
    DECLARE
        total numeric;
        names text[];
    BEGIN
        CREATE TEMP TABLE unit_rows (id integer PRIMARY KEY, name text, x bigint) ON COMMIT DROP;
        FOR n IN 1..{_SQL_UNITS} LOOP
            INSERT INTO unit_rows
            SELECT u.id, u.name, div(u.id::numeric * 10400 + 9999, 10000)
            FROM unnest(ARRAY[n, n + 1000, n + 2000, n + 3000], ARRAY['a', 'b', 'a', 'b'])
                AS u (id, name);
            UPDATE unit_rows r SET x = r.x + s.added
            FROM (SELECT u.id, sum(u.added) AS added
                  FROM unnest(ARRAY[n, n + 1000], ARRAY[1, 2]) AS u (id, added) GROUP BY u.id) s
            WHERE r.id = s.id;
            WITH gone AS (DELETE FROM unit_rows r WHERE r.id = n + 2000 RETURNING r.*)
            SELECT sum(g.x), array_agg(g.name) INTO total, names FROM gone g;
        END LOOP;
    END $$
"""


class _Booking:
    def __init__(self, pool: PostgresPool, books: Books, payer: Payer) -> None:
        self._pool = pool
        self._books = books
        self._payer = payer
        self._settlements = PostgresSettlementStore(pool)

    async def sql_unit_us(self) -> float:
        before_ns = await sessions_cpu_ns(self._pool)
        await self._pool.execute(_SQL_UNIT)
        return (await sessions_cpu_ns(self._pool) - before_ns) / _SQL_UNITS / 1e3

    async def round(self, folder: Path) -> tuple[float, float]:
        """Book some requests; return microseconds of Postgres and of the meter for each."""
        before_ns = await sessions_cpu_ns(self._pool)
        hold_ids = await self._hold()
        log = folder / f"{hold_ids[0]}.jsonl"
        lines = [line(one) for one in hold_ids]
        log.write_bytes(b"".join(one + b"\n" for one in lines))
        message = message_from_lines([one.decode() for one in lines])
        readers = LogReaders(log, self._settlements)
        began_s = time.process_time()
        await readers.read_stream([message])
        await readers.read_file()
        meter_s = time.process_time() - began_s
        await readers.close()
        server_ns = await sessions_cpu_ns(self._pool) - before_ns
        left = await self._pool.fetchval("SELECT count(*) FROM holds")
        assert left == 0, f"{left} holds were not settled"
        return server_ns / REQUESTS / 1e3, meter_s / REQUESTS * 1e6

    async def _hold(self) -> list[uuid.UUID]:
        asked = [
            replace(
                self._books.request(self._payer, USD, 600_000, 100, 100, 4_000),
                request_id=uuid.uuid4(),
            )
            for _ in range(REQUESTS)
        ]
        for start in range(0, REQUESTS, HELD_AT_ONCE):
            batch = asked[start : start + HELD_AT_ONCE]
            answers = await asyncio.gather(*map(self._books.holds.place, batch))
            assert all(isinstance(answer, HoldPlaced) for answer in answers), answers
        return [one.hold_id for one in asked]


async def measure_booking(service_dsn: str) -> dict[str, dict[str, float]]:
    """Return the CPU of a request by process, in microseconds and in units.

    Nobody else uses the database meanwhile, and it has no open holds.
    """
    pool = await open_pool(service_dsn, 4, _SESSION)
    books = await Books.open(pool)
    booking = _Booking(pool, books, await books.payer(uuid.uuid4().hex, 10**6 * USD))
    sql_us: list[float] = []
    python_us: list[float] = []
    server_us: list[float] = []
    meter_us: list[float] = []
    with tempfile.TemporaryDirectory(prefix="tkb-") as folder:
        for number in range(ROUNDS + 1):
            server, meter = await booking.round(Path(folder))
            # The first round connects, prepares and plans.
            if number > 0:
                server_us.append(server)
                meter_us.append(meter)
                sql_us.append(await booking.sql_unit_us())
                python_us.append(min(unit_us() for _ in range(3)))
    await books.holds.close()
    await pool.close()
    return {"postgres": _row(server_us, sql_us), "meter": _row(meter_us, python_us)}


def _row(spent_us: Iterable[float], units_us: Iterable[float]) -> dict[str, float]:
    least_us, unit = min(spent_us), min(units_us)
    return {
        "cpu_us": round(least_us, 1),
        "unit_us": round(unit, 2),
        "units": round(least_us / unit, 2),
    }


def main() -> int:
    """Print the rows, of a Postgres of its own or of the database that is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.booking", description=__doc__)
    parser.add_argument("--database", help="DSN of the service role in an idle database")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if chosen.database is not None:
        rows = asyncio.run(measure_booking(chosen.database))
    else:
        with (
            tempfile.TemporaryDirectory(prefix="tkb-", dir="/tmp") as folder,
            servers.postgres_running(Path(folder)) as server,
        ):
            servers.run_in_thread(lambda: servers.make_template(server))
            database = servers.run_in_thread(lambda: servers.clone_template(server))
            rows = servers.run_in_thread(lambda: measure_booking(database.service_dsn))
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
