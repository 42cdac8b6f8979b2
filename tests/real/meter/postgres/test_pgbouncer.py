"""pgbouncer before Postgres: it works with pool_mode = session, and says so otherwise."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from meter.errors import StoreUnavailable
from meter.ledger.verification_store import VerificationStore
from meter.postgres.pool import KEYED_SESSION, acquire, open_pool
from meter.settlement.settlement_store import PostgresSettlementStore
from tests import servers
from tests.books import USD, Books, observed
from tests.servers import Database
from tollkeeper.stack.servers.postgres import PostgresServer

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PORT = 6432

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@contextmanager
def pgbouncer(server: PostgresServer, database: Database, pool_mode: str) -> Iterator[str]:
    """Run one before the database; gives the DSN that goes through it."""
    user, _, rest = database.service_dsn.removeprefix("postgresql://").partition("@")
    socket = rest.partition("host=")[2].partition("&")[0]
    with tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp") as folder:
        root = Path(folder)
        settings = root / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={socket} user={user}\n"
            f"[pgbouncer]\nlisten_port = {PORT}\nunix_socket_dir = {root}\nauth_type = any\n"
            f"pool_mode = {pool_mode}\ndefault_pool_size = 2\n"
        )
        assert PGBOUNCER is not None
        # Like Postgres, it refuses to run as root; and only Postgres' user may enter its folder.
        run_as = server.run_as
        os.chown(root, run_as.uid, run_as.gid)
        command = [*run_as.prefix, PGBOUNCER, str(settings)]
        dsn = f"postgresql://{user}@/{database.name}?host={root}&port={PORT}"

        async def is_ready() -> bool:
            try:
                connection = await asyncpg.connect(dsn, statement_cache_size=0)
            except (OSError, asyncpg.PostgresError):
                return False
            await connection.close()
            return True

        with servers.running(command, is_ready, root / "pgbouncer.log"):
            yield dsn


async def test_with_sessions_of_its_own_everything_works(
    postgres_server: PostgresServer, database: Database
) -> None:
    with pgbouncer(postgres_server, database, "session") as dsn:
        pool = await open_pool(dsn, 2, KEYED_SESSION)
        async with acquire(pool) as connection:
            assert await connection.fetchval("SHOW enable_seqscan") == "off"
            assert await connection.fetchval("SHOW statement_timeout") != "0"
        books = await Books.open(pool)
        payer = await books.payer("alice", 10 * USD)
        held = await asyncio.gather(*(books.held(payer, USD // 100) for _ in range(20)))
        await PostgresSettlementStore(pool).settle([observed(hold_id) for hold_id in held])
        assert await books.funds("alice") == (10 * USD - 20 * USD // 1000, 0, 0)
        assert (await VerificationStore(pool).verify()).failures == ()
        await books.holds.close()
        await pool.close()


async def test_without_them_the_error_says_what_to_set(
    postgres_server: PostgresServer, database: Database
) -> None:
    with pgbouncer(postgres_server, database, "transaction") as dsn:
        first, second = [await open_pool(dsn, 1) for _ in range(2)]

        async def ask() -> None:
            async with acquire(first) as connection:
                await connection.fetchval("SELECT 1")

        await ask()
        # The transaction takes the server's session that has the statement of the other client.
        async with acquire(second) as connection, connection.transaction():
            await connection.execute("SELECT 1")
            with pytest.raises(StoreUnavailable, match="pool_mode = session"):
                await ask()
        await first.close()
        await second.close()
