"""`python -m bench.holding`: what a batch of holds costs Postgres, its client, and the log.

With `--clone` the code of another clone takes turns with this one's, on the same Postgres: a shared
machine then affects both equally.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.holding_rounds import FORMS, Round
from bench.load import median
from bench.stack import THIS_CLONE
from tests import servers
from tollkeeper.stack.servers import postgres
from tollkeeper.stack.servers.postgres import PostgresServer

SIZES: Final = (1, 4, 8, 64)
HOLDS_PER_ROUND: Final = 256
BATCHES_MOST: Final = 64
_WORKER: Final = Path(__file__).with_name("holding_rounds.py")


@dataclass(frozen=True, slots=True)
class _Side:
    """A process with the code of one clone, which places holds when it is told to."""

    name: str
    process: subprocess.Popen[str]

    def place(self, form: str, size: int) -> Round:
        batches = min(BATCHES_MOST, max(1, HOLDS_PER_ROUND // size))
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([form, size, batches]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended: its error is above")
        return Round(**json.loads(line))


def main() -> int:
    """Print the cost of batches, for each size and form of accounts."""
    parser = argparse.ArgumentParser(prog="python -m bench.holding", description=__doc__)
    parser.add_argument(
        "--clone", type=Path, help="the folder of another clone, after `make setup`"
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each kind")
    chosen = parser.parse_args()
    clones = {"this": THIS_CLONE}
    if chosen.clone is not None:
        clones["other"] = chosen.clone.resolve()
    with (
        tempfile.TemporaryDirectory(prefix="tkh-", dir="/tmp") as folder,
        servers.postgres_running(Path(folder)) as server,
        contextlib.ExitStack() as running,
    ):
        sides = [
            running.enter_context(_side(server, name, clone)) for name, clone in clones.items()
        ]
        print("accounts | batch | side  | server us | client us | WAL bytes a hold")
        for form in FORMS:
            for size in SIZES:
                _print(form, size, sides, chosen.rounds)
    return 0


@contextlib.contextmanager
def _side(server: PostgresServer, name: str, clone: Path) -> Iterator[_Side]:
    database = f"side_{name}"
    asyncio.run(postgres.create_roles_and_database(server, database))
    roles = (postgres.OWNER_ROLE, postgres.SERVICE_ROLE, postgres.SUPERUSER)
    process = subprocess.Popen(
        # Without -P the folder of the script would come before the other clone's code.
        [
            clone / ".venv/bin/python",
            "-P",
            _WORKER,
            *(server.dsn(role, database) for role in roles),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(clone)},
    )
    try:
        yield _Side(name, process)
    finally:
        process.terminate()
        process.wait()


def _print(form: str, size: int, sides: list[_Side], rounds: int) -> None:
    measured: dict[str, list[Round]] = {side.name: [] for side in sides}
    for turn in range(rounds + 1):
        # The first of a pair alternates: what one leaves to write must not slow only the other.
        for side in sides if turn % 2 == 0 else sides[::-1]:
            done = side.place(form, size)
            if turn > 0:
                measured[side.name].append(done)
    for name, done_rounds in measured.items():
        server = median([one.server_us for one in done_rounds])
        client = median([one.client_us for one in done_rounds])
        wal = median([one.wal_bytes for one in done_rounds])
        print(f"{form:>8} | {size:>5} | {name:<5} | {server:>9.0f} | {client:>9.0f} | {wal:>8.0f}")


if __name__ == "__main__":
    sys.exit(main())
