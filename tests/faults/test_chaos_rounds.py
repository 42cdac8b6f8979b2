"""However many ask at once, and of whichever authz: no more go up than the balance covers."""

import tempfile
from pathlib import Path

from chaos.rounds import SHORT, run_rounds
from tests.servers import run_in_thread

SEED = 500


def test_never_more_than_covered_reach_the_upstream() -> None:
    with tempfile.TemporaryDirectory(prefix="tk-rounds-", dir="/tmp") as folder:
        outcome = run_in_thread(lambda: run_rounds(Path(folder), SEED, SHORT))
    assert outcome.findings.failures == []
    assert [one for one in outcome.rounds if one.is_overspent] == []
    assert outcome.unclear == []
    assert outcome.is_right, outcome.checks
    arrived = sum(one.arrived for one in outcome.rounds)
    assert arrived == sum(one.may for one in outcome.rounds)
