"""`python -m bench.access`: measure how soon revocation shows, and how exactly limits hold."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from bench.access.campaign import Target, run_campaign
from chaos.stack import ChaosStack, chaos_environment

LATEST = Path(__file__).parent.parent / "access.json"


def main() -> int:
    """Run both on a stack of its own; exit code 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.access", description=__doc__)
    parser.add_argument("--revocations", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=75.0, help="of load against a limit")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tk-access-", dir="/tmp") as folder:
        home = Path(folder) / "home"
        _say("starting the whole system with two authz")
        with ChaosStack(home, chaos_environment(home, {}), 2).running() as stack:
            measured = asyncio.run(
                run_campaign(_target(stack), chosen.revocations, chosen.seconds, chosen.seed, _say)
            )
    rows = measured.rows()
    LATEST.write_text(json.dumps(rows, indent=2) + "\n")
    print(json.dumps(rows, indent=2))
    is_kept = (
        all(row["most_ms"] < 1000 for row in rows["revocation"].values())
        and measured.load.most_in_a_window <= measured.load.limit
    )
    print(f"\nThe rows are in {LATEST}. Next: compare them with docs/benchmarks.md")
    return 0 if is_kept else 1


def _target(stack: ChaosStack) -> Target:
    sockets = sorted(stack.run_folder.glob("authz*.sock"))
    return Target(
        stack.endpoint("gateway"),
        stack.endpoint("api"),
        stack.operator_token,
        [path for path in sockets if "health" not in path.name],
    )


def _say(text: str) -> None:
    print(f"access: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
