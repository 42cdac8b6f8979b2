"""`python -m chaos.payments`: payments under faults, then credit against Stripe's books."""

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Final

import structlog

from chaos.payments.campaign import Plan, run_campaign
from chaos.payments.meter import RULES

DEFAULT_PAYMENTS: Final = 2_000


def main() -> int:
    """Exit code 0 only when credit equals the stand-in's books to the cent."""
    parser = argparse.ArgumentParser(prog="python -m chaos.payments", description=__doc__)
    parser.add_argument("--payments", type=int, default=DEFAULT_PAYMENTS)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--minutes", type=float, help="begin no payment after so long")
    parser.add_argument("--without", choices=RULES, help="switch one rule off: must end red")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    # Webhooks are given up by the thousand here, which is the point.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    # Sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="tk-pay-", dir="/tmp"))
    plan = Plan(given.payments, given.seed, folder, given.without, given.minutes)
    outcome = asyncio.run(run_campaign(plan))
    print(outcome.to_text())
    print("Equal to the cent." if outcome.is_right else f"NOT RIGHT. The state is in {folder}")
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
