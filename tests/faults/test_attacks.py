"""A short form of `make attacks`, and a negative control of it.

Shares of success are compared, not times: a busy machine slows the bystander down without any
attack.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

from attacks.attacker import PARALLEL_SEARCHES
from attacks.campaign import LOCKED_ACCOUNT, Row, run_attacks
from attacks.controls import CONTROLS, interpreter_without
from chaos.stack import ChaosStack, chaos_environment

SECONDS = 4.0
# A request in a hundred may fail, and one of a few dozen more by the chance of a busy machine.
TOLERANCE = 0.05
ATTEMPTS = 4


def rows_of(python: str, *names: str) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tk-attacks-", dir="/tmp") as folder:
        home = Path(folder) / "home"
        with ChaosStack(home, chaos_environment(home, {}), 1, python).running() as stack:
            return asyncio.run(run_attacks(stack, names, SECONDS, lambda row: None))


def test_attacks_stop_nobody_else() -> None:
    for row in rows_of(
        sys.executable, "withheld bodies", "rapid resets", PARALLEL_SEARCHES, LOCKED_ACCOUNT
    ):
        assert row.seen.success >= row.usual.success - TOLERANCE, row
        assert row.worst_balance_picos >= 0, row
        assert row.lost_picos == 0, row
        assert row.spent["connections"] > 0, row


def test_without_its_defence_an_attack_stops_others(tmp_path: Path) -> None:
    interpreter = interpreter_without(LOCKED_ACCOUNT, tmp_path)
    # It stops others where they share a batch with the locked account, which chance decides.
    for _ in range(ATTEMPTS):
        [row] = rows_of(interpreter, LOCKED_ACCOUNT)
        if row.seen.success < row.usual.success - 2 * TOLERANCE:
            break
    assert row.seen.success < row.usual.success - 2 * TOLERANCE
    assert row.failures()


@pytest.mark.parametrize("attack", CONTROLS)
def test_the_text_of_each_removed_defence_is_there(attack: str, tmp_path: Path) -> None:
    assert Path(interpreter_without(attack, tmp_path)).exists()
