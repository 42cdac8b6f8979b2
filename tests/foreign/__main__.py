"""`make foreign`: clients, upstreams and agents that are not ours, unmodified, against a stack.

Writes what it saw into docs/clients.md. Exit code 0 only when everything is as its users expect
and the books equal the bills.
"""

import argparse
import tempfile
from pathlib import Path

from tests.e2e.admin import Admin
from tests.e2e.running_stack import RunningStack, fresh_environment
from tests.foreign.clients import CLIENTS
from tests.foreign.page import write_page
from tests.foreign.running import Outcome, check_books, run_client
from tollkeeper.stack.servers.ports import free_port


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.foreign", description=__doc__)
    parser.add_argument("--only", default="", help="run clients whose name has this in it")
    parser.add_argument(
        "--feature", action="append", default=[], help="only this feature or status"
    )
    given = parser.parse_args()
    chosen = [client for client in CLIENTS if given.only in client.name]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="tk-foreign-", dir="/tmp") as folder:
        home = Path(folder) / "stack"
        for client in chosen:
            client.command()
        stack = RunningStack(home, fresh_environment(home, free_port(), free_port()))
        stack.up()
        try:
            admin = Admin(stack)
            admin.wait_well()
            for client in chosen:
                outcomes.append(run_client(client, admin, given.feature))
                print(outcomes[-1].to_text(), flush=True)
            failures = [failure for outcome in outcomes for failure in outcome.failures()]
            failures += check_books(admin, [outcome.customer for outcome in outcomes])
        finally:
            stack.end()
    if chosen == list(CLIENTS) and not given.feature:
        write_page(outcomes)
    for failure in failures:
        print(f"NOT RIGHT: {failure}")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
