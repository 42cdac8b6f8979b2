"""`make foreign`: clients, upstreams and agents that are not ours, unmodified, against a stack.

Writes what it saw into docs/clients.md. Exit code 0 only when everything is as its users expect
and the books equal the bills.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Final

from tests.e2e.admin import Admin
from tests.e2e.running_stack import RunningStack, fresh_environment
from tests.foreign.agents import AgentRun, run_agents
from tests.foreign.clients import CLIENTS, Client
from tests.foreign.page import write_page
from tests.foreign.running import Outcome, check_books, run_client
from tests.foreign.upstreams import UpstreamRun, run_upstreams
from tollkeeper.stack.servers.ports import free_port

PARTS: Final = ("clients", "agents", "upstreams")


def main() -> int:
    """Run the parts that are asked for; return 0 only when all is as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.foreign", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all parts")
    parser.add_argument("--client", default="", help="only clients whose name has this in it")
    parser.add_argument("--feature", action="append", default=[], help="a feature or a status")
    given = parser.parse_args()
    parts = given.part or list(PARTS)
    chosen = [client for client in CLIENTS if given.client in client.name]
    outcomes: list[Outcome] = []
    agents: list[AgentRun] = []
    upstreams: list[UpstreamRun] = []
    with tempfile.TemporaryDirectory(prefix="tk-foreign-", dir="/tmp") as name:
        folder = Path(name)
        home = folder / "stack"
        stack = RunningStack(home, fresh_environment(home, free_port(), free_port()))
        stack.up()
        try:
            admin = Admin(stack)
            admin.wait_well()
            if "clients" in parts:
                outcomes = _run_clients(admin, chosen, given.feature)
            if "agents" in parts:
                agents = run_agents(admin)
            ours = [one.customer for one in outcomes] + [one.customer for one in agents]
            failures = [failure for outcome in outcomes for failure in outcome.failures()]
            failures += check_books(admin, ours) if ours else []
            if "upstreams" in parts:
                upstreams = run_upstreams(admin, folder)
        finally:
            stack.end()
    for agent in agents:
        print(f"{agent.name} {agent.version}: {'complete' if agent.is_complete else agent.said}")
    for upstream in upstreams:
        print(f"{upstream.name}, usage {upstream.usage}: charged by {upstream.evidence}")
    failures += [f"{one.name}: {one.said}" for one in agents if not one.is_complete]
    failures += [failure for one in upstreams for failure in one.failures]
    if outcomes and agents and upstreams and not given.client and not given.feature:
        write_page(outcomes, agents, upstreams)
    for failure in failures:
        print(f"NOT RIGHT: {failure}")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


def _run_clients(admin: Admin, chosen: list[Client], wanted: list[str]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for client in chosen:
        outcomes.append(run_client(client, admin, wanted))
        print(outcomes[-1].to_text(), flush=True)
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main())
