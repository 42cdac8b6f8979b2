"""Credit equals the books of Stripe's stand-in under faults, and not with a rule switched off."""

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

from chaos.payments.campaign import Plan, run_campaign
from chaos.payments.meter import SWEEP, UNIQUE_KEY


@pytest.mark.parametrize("without", [None, UNIQUE_KEY, SWEEP])
def test_credit_equals_the_books_unless_a_rule_is_off(without: str | None) -> None:
    # Without its rule each payment is credited twice, and every second one is lost.
    payments = 30 if without is None else 12
    with tempfile.TemporaryDirectory(prefix="tk-pay-", dir="/tmp") as folder:
        outcome = asyncio.run(run_campaign(Plan(payments, 4, Path(folder), without)))
    sys.stdout.write(f"\n{outcome.to_text()}\n")
    if without is None:
        assert outcome.is_right
        assert outcome.paid > 10
    elif without == UNIQUE_KEY:
        assert outcome.doubled
    else:
        assert outcome.lost
