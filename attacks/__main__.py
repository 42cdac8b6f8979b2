"""`python -m attacks`: attack a whole stack, and print what a bystander sees of each attack."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from attacks.attacker import RUNS
from attacks.campaign import LOCKED_ACCOUNT, SETTINGS, Row, run_attacks
from attacks.controls import CONTROLS, interpreter_without
from chaos.stack import ChaosStack, chaos_environment

LATEST = Path(__file__).with_name("latest.json")
NAMES = (*RUNS, LOCKED_ACCOUNT)


def main() -> int:
    """Exit code 0 only when each row keeps its limits."""
    parser = argparse.ArgumentParser(prog="python -m attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--only", choices=NAMES, action="append", help="may be repeated")
    parser.add_argument(
        "--without",
        choices=CONTROLS,
        action="append",
        help="run this attack with its defence removed: must be red; may be repeated",
    )
    chosen = parser.parse_args()
    names = chosen.without or chosen.only or NAMES
    print(f"{'attack':<24} spent by the attacker; a bystander's success, p50/p95/p99 in ms")
    with tempfile.TemporaryDirectory(prefix="tk-attacks-", dir="/tmp") as folder:
        python = sys.executable
        if chosen.without:
            python = interpreter_without(chosen.without, Path(folder))
        home = Path(folder) / "home"
        with ChaosStack(home, chaos_environment(home, SETTINGS), 1, python).running() as stack:
            rows = asyncio.run(_told(run_attacks(stack, names, chosen.seconds)))
    if chosen.without is None and chosen.only is None:
        LATEST.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    broken = [f"{row.attack}: {failure}" for row in rows for failure in row.failures()]
    print("\n".join(["", *(broken or ["Every limit is kept."])]))
    if chosen.without:
        kept = [row.attack for row in rows if not row.failures()]
        print("\n".join(f"{one}: NOT RED without its defence" for one in kept))
        return 0 if kept else 1
    return 1 if broken else 0


async def _told(rows: AsyncIterator[Row]) -> list[Row]:
    """Print each row as it is ready; return all."""
    told = []
    async for row in rows:
        _say(row)
        told.append(row)
    return told


def _say(row: Row) -> None:
    usual, seen, spent = row.usual, row.seen, row.spent
    statuses = ", ".join(
        f"{count} x {status}" for status, count in sorted(spent["statuses"].items())
    )
    lost = f", lost {row.lost_picos}" if row.lost_picos else ""
    charge = "nothing billed" if row.charge is None else f"charge/bill {row.charge:.3f}"
    print(
        f"{row.attack:<24} {spent['connections']} connections, {statuses or 'no answer'}, "
        f"{spent['cpu_s']} s CPU\n"
        f"{'':<24} usual {usual.success:.1%} {usual.p50_ms}/{usual.p95_ms}/{usual.p99_ms}, "
        f"during {seen.success:.1%} {seen.p50_ms}/{seen.p95_ms}/{seen.p99_ms} "
        f"(p95 x {row.slowdown:.1f}, p99 x {row.slowest:.1f}); "
        f"worst balance {row.worst_balance_picos}{lost}, {charge}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
