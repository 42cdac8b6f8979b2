"""Postgres on one machine: made once, reached over a Unix socket only.

Access is `trust` on a socket inside a folder of mode 0700: whoever may open that
folder is this machine's operator already, and no password has to be kept, passed
or leaked. Nothing listens on TCP.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.servers.privileges import RunAs

SUPERUSER = "postgres"
OWNER_ROLE = "tollkeeper_owner"
SERVICE_ROLE = "tollkeeper_service"
DATABASE = "tollkeeper"
PORT = 5432

SHARED_BUFFERS = "256MB"
MAX_CONNECTIONS = 100
# Random ids touch many index pages, and the first touch after a checkpoint logs the whole page:
# rarer checkpoints and compressed pages keep the log small.
MAX_WAL_SIZE = "2GB"
CHECKPOINT_TIMEOUT = "15min"
INITDB_TIMEOUT_S = 300
CONNECT_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """One server: its programs, its data, its socket and the user it runs as."""

    binaries: Path
    data: Path
    sockets: Path
    run_as: RunAs

    def prepare(self) -> None:
        """Make the folders and, the first time, the database cluster.

        Raises StackError when the data belongs to somebody else or to another
        major version, or when initdb fails.
        """
        self.run_as.make_private_directory(self.sockets)
        if not self.data.exists():
            self._initialise()
        if self.data.stat().st_uid != self.run_as.uid:
            raise StackError(
                f"The Postgres data in {self.data} belongs to another user; give it back with "
                f"`chown -R {self.run_as.uid}:{self.run_as.gid} {self.data}`."
            )
        self._check_version()

    def _initialise(self) -> None:
        """Make the cluster aside and move it into place whole: a start may be cut short."""
        unfinished = self.data.with_suffix(".unfinished")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self.run_as.make_private_directory(unfinished)
        outcome = subprocess.run(
            [
                *self.run_as.prefix,
                str(self.binaries / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={SUPERUSER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
        )
        if outcome.returncode != 0:
            lines = [line.strip() for line in outcome.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if "error:" in line or "FATAL" in line]
            reason = (errors or lines or ["no message"])[-1]
            raise StackError(f"Postgres could not make its data folder {self.data}: {reason}")
        unfinished.rename(self.data)

    def command(self) -> list[str]:
        """The command line of the server."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "shared_buffers": SHARED_BUFFERS,
            "max_connections": str(MAX_CONNECTIONS),
            "max_wal_size": MAX_WAL_SIZE,
            "checkpoint_timeout": CHECKPOINT_TIMEOUT,
            "wal_compression": "on",
            "fsync": "on",
            "synchronous_commit": "on",
            # A session that somebody left in a transaction must not keep accounts locked.
            "idle_in_transaction_session_timeout": "60s",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [
            *self.run_as.prefix,
            str(self.binaries / "postgres"),
            "-D",
            str(self.data),
            *options,
        ]

    def dsn(self, role: str, database: str = DATABASE) -> str:
        """Return the DSN for `role` and `database`; it holds no secret."""
        return f"postgresql://{role}@/{database}?host={quote(str(self.sockets), safe='/')}"

    def _check_version(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise StackError(
                f"{self.data} is not a Postgres data folder ({error.strerror}: PG_VERSION); "
                "put it back from your backup, or move it away to begin anew."
            ) from None
        output = subprocess.run(
            [str(self.binaries / "postgres"), "--version"],
            check=True,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
        ).stdout
        ours = output.split()[-1].split(".")[0]
        if found != ours:
            raise StackError(
                f"The Postgres data in {self.data} is of version {found} but this server is "
                f"{ours}; move the folder away, or upgrade it with pg_upgrade."
            )


async def accepts(server: PostgresServer) -> bool:
    """Return whether the server answers a query."""
    try:
        connection = await asyncpg.connect(
            server.dsn(SUPERUSER, "postgres"), timeout=CONNECT_TIMEOUT_S
        )
        await connection.close()
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresError,
        # These come out when the server is killed at the very moment of asking.
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ):
        return False
    return True


async def create_roles_and_database(server: PostgresServer, database: str = DATABASE) -> None:
    """Make the two roles and an empty database, as far as they are missing."""
    connection = await asyncpg.connect(server.dsn(SUPERUSER, "postgres"), timeout=CONNECT_TIMEOUT_S)
    try:
        for role in (OWNER_ROLE, SERVICE_ROLE):
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f'CREATE ROLE "{role}" LOGIN')
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
            await connection.execute(f'CREATE DATABASE "{database}" OWNER "{OWNER_ROLE}"')
    finally:
        await connection.close()
