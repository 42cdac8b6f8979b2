"""Requests that nobody reads to the end are charged about what they cost, and exactly so in sum."""

import asyncio
import sys
import tempfile
from pathlib import Path

from chaos.abandoned.campaign import run_abandoned
from chaos.abandoned.kinds import KINDS
from chaos.abandoned.verdict import Charged, Verdict

REQUESTS = 4 * len(KINDS)
SEED = 1


def test_charge_against_bill_in_twelve_ways() -> None:
    with tempfile.TemporaryDirectory(prefix="tk-abandoned-", dir="/tmp") as folder:
        verdict = asyncio.run(run_abandoned(Path(folder) / "home", REQUESTS, SEED))
    sys.stdout.write(f"\n{verdict.to_text()}\n")
    assert verdict.failures == []
    assert verdict.unbilled_charges == 0
    assert len(verdict.requests) >= len(KINDS)
    assert any(one.guess_picos is not None for one in verdict.requests)
    for one in verdict.requests:
        if one.guess_picos is None:
            assert one.charge_picos == one.bill_picos, one


def test_a_charge_of_the_whole_hold_is_not_right() -> None:
    near = Charged("near", 1_000, 110, 110, 100)
    whole_hold = Charged("whole", 1_000, 1_000, 1_000, 100)
    assert len(Verdict((near, whole_hold), 0).failures) == 2
    assert Verdict((near, Charged("near", 1_000, 92, 95, 100)), 0).failures == []
