"""`python -m chaos.failover`: a route over three failing providers, and who was paid."""

import argparse
import asyncio
import secrets
import tempfile
from pathlib import Path
from typing import Final

from chaos.failover.campaign import run_failover

DEFAULT_REQUESTS: Final = 10_000


def main() -> int:
    """Exit code 0 only when the books equal the bills of all providers."""
    parser = argparse.ArgumentParser(prog="python -m chaos.failover", description=__doc__)
    parser.add_argument("--requests", type=int, default=DEFAULT_REQUESTS)
    parser.add_argument("--seed", type=int, help="default: a new one, printed first")
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tk-failover-", dir="/tmp") as folder:
        verdict = asyncio.run(run_failover(Path(folder), given.requests, seed))
    print(verdict.to_text())
    for failure in verdict.failures[:20]:
        print(f"NOT RIGHT: {failure}")
    return 1 if verdict.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
