"""A short campaign ends right; with one rule switched off, the checker notices."""

import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.campaign import Plan, run_campaign
from chaos.controls import RULES
from chaos.report import Report
from tests.servers import run_in_thread

LOAD_MINUTES = 2.0
PER_SECOND = 25.0
CONTROL_MINUTES = 0.12
CONTROL_SEED = 1
# What each rule is there for, as the checker says it.
NOTICED = {"file": "lost", "unique": "doubled", "lookup": "lost"}

# One meter remembers what it settled a moment ago; only two can settle the same twice.
METERS = {"file": 1, "unique": 2, "lookup": 1}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because sockets lie below it; a campaign that went wrong keeps its own."""
    found = Path(tempfile.mkdtemp(prefix="tk-chaos-", dir="/tmp"))
    yield found
    if found.exists() and not any(found.iterdir()):
        found.rmdir()


def campaign(plan: Plan, capsys: pytest.CaptureFixture[str]) -> Report:
    """Run it; the seed comes first, whatever happens then."""
    with capsys.disabled():
        sys.stdout.write(f"\nseed {plan.seed}; again: {plan.command}\n")
        sys.stdout.flush()
    return run_in_thread(lambda: run_campaign(plan))


@pytest.mark.timeout(480)
def test_a_short_campaign_loses_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(secrets.randbelow(2**31), LOAD_MINUTES, PER_SECOND, folder)
    report = campaign(plan, capsys)
    assert report.verdict.failures == (), f"{plan.command}; state in {folder}"
    assert report.verdict.is_right
    assert report.verdict.bill.provisional_picos == 0
    assert report.kills.total() >= 5 * LOAD_MINUTES
    assert report.verdict.bill_rows > 500


@pytest.mark.parametrize("rule", RULES)
def test_with_a_rule_switched_off_the_checker_turns_red(
    rule: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(
        CONTROL_SEED, CONTROL_MINUTES, PER_SECOND, folder, without=rule, instances=METERS[rule]
    )
    report = campaign(plan, capsys)
    assert not report.verdict.is_right
    assert getattr(report.verdict.bill, NOTICED[rule]) > 0
    shutil.rmtree(folder)
