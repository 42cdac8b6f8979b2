"""A short campaign ends right; with one rule switched off, the checker notices."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chaos.campaign import Plan, run_campaign
from chaos.controls import RULES
from chaos.report import Report
from tests.servers import run_in_thread

# Another one each time would make a test that fails now and then; `make chaos` draws a new one.
SEED = 20261122
LOAD_MINUTES = 1.5
PER_SECOND = 25.0
# A control that shows nothing on a busy machine is tried again for longer.
CONTROL_MINUTES = (0.12, 0.5, 1.0)
CONTROL_SEED = 1
# What each rule is there for, as the checker says it.
NOTICED = {"file": "lost", "unique": "doubled", "lookup": "lost"}

# One meter remembers what it settled a moment ago; only two can settle the same twice.
METERS = {"file": 1, "unique": 2, "lookup": 1}


def new_folder() -> Path:
    """A short path, because sockets lie below it."""
    return Path(tempfile.mkdtemp(prefix="tk-chaos-", dir="/tmp"))


def test_a_short_campaign_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    folder = new_folder()
    plan = Plan(SEED, LOAD_MINUTES, PER_SECOND, folder)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {plan.seed}; again: {plan.command}\n")
        sys.stdout.flush()
    report = run_in_thread(lambda: run_campaign(plan))
    assert report.verdict.failures == (), f"{plan.command}; state in {folder}"
    assert report.verdict.is_right
    assert report.verdict.bill.provisional_picos == 0
    assert report.kills.total() >= 5 * LOAD_MINUTES
    assert report.verdict.bill_rows > 500


@pytest.fixture(scope="module")
def reports_without() -> Iterator[dict[str, Report]]:
    """A campaign with each of the rules off, side by side: what counts is not their speed."""
    folders = {rule: new_folder() for rule in RULES}

    def control(rule: str) -> Report:
        for number, minutes in enumerate(CONTROL_MINUTES):
            plan = Plan(
                CONTROL_SEED,
                minutes,
                PER_SECOND,
                folders[rule] / str(number),
                without=rule,
                instances=METERS[rule],
            )
            report = asyncio.run(run_campaign(plan))
            if getattr(report.verdict.bill, NOTICED[rule]):
                break
        return report

    with ThreadPoolExecutor(len(RULES)) as pool:
        yield dict(zip(RULES, pool.map(control, RULES), strict=True))
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("rule", RULES)
def test_with_a_rule_switched_off_the_checker_turns_red(
    rule: str, reports_without: dict[str, Report]
) -> None:
    report = reports_without[rule]
    assert not report.verdict.is_right
    assert getattr(report.verdict.bill, NOTICED[rule]) > 0
