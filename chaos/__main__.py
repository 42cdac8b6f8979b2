"""`python -m chaos`: attack a whole stack, then say whether a single pico-dollar is missing."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Final

from chaos.campaign import Plan, run_campaign
from chaos.controls import RULES
from meter.ingest.access_logs import AccessLogs

LATEST: Final = Path(__file__).with_name("latest.json")
DEFAULT_MINUTES: Final = 5.0
DEFAULT_PER_SECOND: Final = 40.0


def main() -> int:
    """Exit code 0 only when every invariant holds."""
    plan = _plan(_arguments())
    print(f"seed {plan.seed}", flush=True)
    print(f"{len(plan.faults())} faults, see {plan.folder / 'schedule.jsonl'}", flush=True)
    report = asyncio.run(run_campaign(plan))
    print(report.to_text())
    if plan.without is None and not plan.has_further:
        report.write(LATEST)
    if report.verdict.is_right:
        print("\nEvery invariant holds.")
        return 0
    print(f"\nNOT RIGHT. The difference is {report.verdict.bill.difference_picos} pico-dollars.")
    for failure in report.verdict.failures:
        print(f"  {failure}")
    print(f"\nThe state is kept in {plan.folder}\nAgain: {plan.command}")
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="of load")
    parser.add_argument("--seed", type=int, help="default: a new one, printed first")
    parser.add_argument("--rate", type=float, default=DEFAULT_PER_SECOND, help="requests a second")
    parser.add_argument("--without", choices=RULES, help="switch one rule off: must end red")
    parser.add_argument("--folder", type=Path, help="of the state; default: a new one in /tmp")
    parser.add_argument("--instances", type=int, default=2, help="of authz, and of the meter")
    parser.add_argument("--no-reports", action="store_true", help="the upstream reports nothing")
    parser.add_argument(
        "--access-logs", choices=[*AccessLogs], default=AccessLogs.BOTH, help="that Envoy writes"
    )
    parser.add_argument("--free-failures", action="store_true", help="no error is billed")
    parser.add_argument(
        "--providers", action="store_true", help="two more providers, and own keys of accounts"
    )
    return parser.parse_args()


def _plan(given: argparse.Namespace) -> Plan:
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    # Sockets need a short path.
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tk-chaos-", dir="/tmp"))
    return Plan(
        seed,
        given.minutes,
        given.rate,
        folder,
        given.without,
        given.instances,
        has_reports=not given.no_reports,
        has_billed_failures=not given.free_failures,
        access_logs=given.access_logs,
        has_further=given.providers,
    )


if __name__ == "__main__":
    sys.exit(main())
