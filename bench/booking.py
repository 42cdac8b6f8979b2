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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from bench.calibration import unit_us
from bench.processes import sessions_cpu_ns
from bench.reading import LogReaders
from chaos.replayed import message_from_lines
from meter.holds.hold import HoldPlaced
from meter.postgres.pool import KEYED_SESSION, PostgresConnection, PostgresPool, acquire, open_pool
from meter.settlement.settlement_store import PostgresSettlementStore
from tests import servers
from tests.books import USD, Books, Payer
from tests.log_lines import line

ROUNDS: Final = 16
REQUESTS: Final = 200
HELD_AT_ONCE: Final = 4
# Short, so that many of them are not interrupted.
CHUNK: Final = 40
_SESSION: Final = {**KEYED_SESSION, "synchronous_commit": "off"}
# What booking does to rows, in a table of its own, with a call for each unit: a slower processor,
# and caches that other processes fill between two calls, make both slower alike.
_SQL_UNIT: Final = """
    CREATE TEMP TABLE unit_rows (id integer PRIMARY KEY, name text, x bigint);
    CREATE FUNCTION pg_temp.unit(n integer) RETURNS numeric LANGUAGE plpgsql AS $$
    DECLARE
        total numeric;
        names text[];
    BEGIN
        INSERT INTO unit_rows
        SELECT u.id, u.name, div(u.id::numeric * 10400 + 9999, 10000)
        FROM unnest(ARRAY[n, n + 1000, n + 2000, n + 3000], ARRAY['a', 'b', 'a', 'b'])
            AS u (id, name);
        UPDATE unit_rows r SET x = r.x + s.added
        FROM (SELECT u.id, sum(u.added) AS added
              FROM unnest(ARRAY[n, n + 1000], ARRAY[1, 2]) AS u (id, added) GROUP BY u.id) s
        WHERE r.id = s.id;
        WITH gone AS (DELETE FROM unit_rows r
                      WHERE r.id = ANY (ARRAY[n, n + 1000, n + 2000, n + 3000]) RETURNING r.*)
        SELECT sum(g.x), array_agg(g.name) INTO total, names FROM gone g;
        RETURN total;
    END $$;
"""
_UNIT_CALLS: Final = 10


class _SqlUnit:
    """A piece of SQL, called again and again in a session of its own."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def measure_us(self) -> float:
        """Return the CPU of Postgres for a call, the mean of some."""
        schedule = Path(f"/proc/{self._connection.get_server_pid()}/schedstat")
        before_ns = int(schedule.read_text().split()[0])
        for number in range(_UNIT_CALLS):
            await self._connection.fetchval("SELECT pg_temp.unit($1)", number)
        return (int(schedule.read_text().split()[0]) - before_ns) / _UNIT_CALLS / 1e3


class _Booking:
    def __init__(self, pool: PostgresPool, books: Books, payer: Payer) -> None:
        self._pool = pool
        self._books = books
        self._payer = payer
        self._settlements = PostgresSettlementStore(pool)

    async def hold(self) -> tuple[list[uuid.UUID], list[float]]:
        """Place the holds of a round; return them, and microseconds of Postgres for each chunk."""
        hold_ids: list[uuid.UUID] = []
        chunks_us: list[float] = []
        for _ in range(0, REQUESTS, CHUNK):
            asked = [
                replace(
                    self._books.request(self._payer, USD, 600_000, 100, 100, 4_000),
                    request_id=uuid.uuid4(),
                )
                for _ in range(CHUNK)
            ]
            before_ns = await sessions_cpu_ns(self._pool)
            for start in range(0, CHUNK, HELD_AT_ONCE):
                batch = asked[start : start + HELD_AT_ONCE]
                answers = await asyncio.gather(*map(self._books.holds.place, batch))
                assert all(isinstance(answer, HoldPlaced) for answer in answers), answers
            chunks_us.append((await sessions_cpu_ns(self._pool) - before_ns) / CHUNK / 1e3)
            hold_ids += [one.hold_id for one in asked]
        return hold_ids, chunks_us

    async def settle(self, hold_ids: list[uuid.UUID], log: Path) -> tuple[float, float]:
        """Read and settle the ends; return microseconds of Postgres and of the meter for each."""
        lines = [line(one) for one in hold_ids]
        log.write_bytes(b"".join(one + b"\n" for one in lines))
        message = message_from_lines([one.decode() for one in lines])
        readers = LogReaders(log, self._settlements)
        before_ns, began_s = await sessions_cpu_ns(self._pool), time.process_time()
        await readers.read_stream([message])
        await readers.read_file()
        meter_s = time.process_time() - began_s
        server_ns = await sessions_cpu_ns(self._pool) - before_ns
        await readers.close()
        left = await self._pool.fetchval("SELECT count(*) FROM holds")
        assert left == 0, f"{left} holds were not settled"
        return server_ns / REQUESTS / 1e3, meter_s / REQUESTS * 1e6


async def measure_booking(service_dsn: str, folder: Path) -> dict[str, dict[str, float]]:
    """Return the CPU of a request by process, in microseconds and in units.

    Nobody else uses the database meanwhile, and it has no open holds.
    """
    pool = await open_pool(service_dsn, 4, _SESSION)
    books = await Books.open(pool)
    booking = _Booking(pool, books, await books.payer(uuid.uuid4().hex, 10**6 * USD))
    sql_us: list[float] = []
    python_us: list[float] = []
    held_us: list[float] = []
    settled_us: list[float] = []
    meter_us: list[float] = []
    async with acquire(pool) as connection:
        await connection.execute(_SQL_UNIT)
        unit = _SqlUnit(connection)
        for number in range(ROUNDS + 1):
            hold_ids, chunks_us = await booking.hold()
            server, meter = await booking.settle(hold_ids, folder / f"{number}.jsonl")
            # The first round connects, prepares and plans.
            if number > 0:
                held_us += chunks_us
                settled_us.append(server)
                meter_us.append(meter)
                sql_us += [await unit.measure_us() for _ in range(5)]
                python_us.append(min(unit_us() for _ in range(3)))
    await books.holds.close()
    await pool.close()
    return {
        "postgres": _row(min(held_us) + min(settled_us), min(sql_us)),
        "meter": _row(min(meter_us), min(python_us)),
    }


def _row(spent_us: float, unit: float) -> dict[str, float]:
    return {
        "cpu_us": round(spent_us, 1),
        "unit_us": round(unit, 2),
        "units": round(spent_us / unit, 2),
    }


def main() -> int:
    """Print the rows, of a Postgres of its own or of the database that is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.booking", description=__doc__)
    parser.add_argument("--database", help="DSN of the service role in an idle database")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if chosen.database is not None:
        with tempfile.TemporaryDirectory(prefix="tkb-") as name:
            rows = asyncio.run(measure_booking(chosen.database, Path(name)))
    else:
        with (
            tempfile.TemporaryDirectory(prefix="tkb-", dir="/tmp") as name,
            servers.postgres_running(Path(name)) as server,
        ):
            servers.run_in_thread(lambda: servers.make_template(server))
            database = servers.run_in_thread(lambda: servers.clone_template(server))
            rows = servers.run_in_thread(partial(measure_booking, database.service_dsn, Path(name)))
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
