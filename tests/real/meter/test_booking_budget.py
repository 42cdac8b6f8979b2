"""Postgres and the meter take the CPU that a booked request is given, and not a quarter more."""

import json
import subprocess
import sys
from pathlib import Path

from bench.budgets import BOOKING_UNITS, TOLERANCE, Spent
from tests.servers import Database

ROOT = Path(__file__).resolve().parents[3]
# One run may fall into a time in which every round is disturbed.
RUNS = 5


def _units(database: Database) -> dict[str, float]:
    """Return the units of a request by process, measured by a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.booking", "--database", database.service_dsn],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name: row["units"] for name, row in json.loads(done.stdout).items()}


def test_postgres_and_the_meter_keep_to_their_budgets(database: Database) -> None:
    """Both sides of each ratio are CPU time of one process, each the least of many rounds."""
    least = _units(database)
    for _ in range(RUNS - 1):
        if not any(Spent(least[name], BOOKING_UNITS[name]).is_over for name in BOOKING_UNITS):
            return
        least = {name: min(units, least[name]) for name, units in _units(database).items()}
    over = {
        name: units for name, units in least.items() if Spent(units, BOOKING_UNITS[name]).is_over
    }
    assert not over, (
        f"A booked request takes {over} units of CPU, and the budgets are {dict(BOOKING_UNITS)}, "
        f"which it may exceed by {TOLERANCE - 1:.0%}. `python -m bench.booking` measures it again, "
        "`python -m bench.holding --clone` beside an earlier version."
    )
