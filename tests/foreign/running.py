"""Runs one client against the stack, and compares the books with the upstream's bill."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from tests.e2e.admin import Admin, Customer
from tests.e2e.running_stack import wait_until
from tests.foreign.clients import Client
from tests.foreign.installing import with_node

CLIENT_TIMEOUT_S: Final = 240
REFUSING_MODEL: Final = "mistralai/mistral-nemo"
"""The model for which the upstream answers 503."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report of one client's program: its features, and the errors that it provoked."""

    client: Client
    customer: Customer
    features: dict[str, dict[str, Any]]
    errors: dict[int, dict[str, Any]]
    said: str
    """The error output of the program, where it ended before its time."""

    def failures(self) -> list[str]:
        """Return what a user of the client would not expect."""
        found = [f"{self.client.name} ended early: {self.said}"] if self.said else []
        for name, told in self.features.items():
            expected = self.client.refused.get(name)
            if told.get("error") != expected:
                found.append(f"{self.client.name}, {name}: {told} instead of {expected}")
        for status, told in self.errors.items():
            expected = self.client.errors.get(status)
            if told.get("error") != expected:
                found.append(f"{self.client.name}, {status}: {told} instead of {expected}")
        return found

    def to_text(self) -> str:
        """Return one line for each feature and each error."""
        lines = [f"{self.client.name} {self.client.version()}"]
        lines += [f"  {name}: {_outcome(told)}" for name, told in self.features.items()]
        lines += [f"  {status}: {_outcome(told)}" for status, told in self.errors.items()]
        return "\n".join(lines)


def _outcome(told: dict[str, Any]) -> str:
    if not told.get("error"):
        return "works"
    return f"{told['error']} {told.get('error_status') or ''} {told['message'][:160]!r}"


def run_client(client: Client, admin: Admin, wanted: list[str]) -> Outcome:
    """Run the program of a client with accounts and keys of its own."""
    customer = admin.open_account("50")
    poor = admin.open_account(None)
    barred = admin.open_account(key={"allowed_models": ["mistralai/*"]})
    limited = admin.open_account(key={"limits": {"requests_per_minute": 1}})
    admin.control("DELETE", "behaviours")
    refusal = {"match": {"model": REFUSING_MODEL}, "status": 503}
    admin.control("POST", "behaviours", refusal)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "FOREIGN_GATEWAY": admin.stack.gateway,
        "FOREIGN_KEY": customer.key,
        "FOREIGN_POOR_KEY": poor.key,
        "FOREIGN_BARRED_KEY": barred.key,
        "FOREIGN_LIMITED_KEY": limited.key,
        "FOREIGN_REFUSING_MODEL": REFUSING_MODEL,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONWARNINGS": "ignore",
    }
    with (
        tempfile.TemporaryDirectory(prefix="tk-client-", dir="/tmp") as home,
        subprocess.Popen(
            [*client.command(), *wanted],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=with_node(environment | {"HOME": home}),
        ) as program,
    ):
        try:
            output, complaints = program.communicate(timeout=CLIENT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            program.kill()
            output, complaints = program.communicate()
            complaints += f"\nkilled after {CLIENT_TIMEOUT_S} s"
    told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    features = {one.pop("feature"): one for one in told if "feature" in one}
    errors = {one.pop("status"): one for one in told if "status" in one}
    said = complaints[-2_000:] or "no reason" if program.returncode else ""
    return Outcome(client, customer, features, errors, said)


def wait_known(admin: Admin, *customers: Customer) -> None:
    """Wait until no hold of these accounts is open or waits for a look-up."""

    def is_known() -> bool:
        return not {"open", "unknown"} & set(admin.hold_states(*customers))

    wait_until(is_known, "every request is settled")


def check_books(admin: Admin, customers: list[Customer]) -> list[str]:
    """Return where the usage of these accounts differs from the upstream's bill."""
    wait_known(admin, *customers)
    billed = {row.generation_id: Decimal(row.cost) for row in admin.bill()}
    settled = {name: Decimal(cost) for name, cost in admin.usage(*customers).items()}
    wrong = {
        name: (cost, billed.get(name)) for name, cost in settled.items() if cost != billed.get(name)
    }
    found = [f"{name}: charged for {pair[0]}, billed {pair[1]}" for name, pair in wrong.items()]
    holds = admin.hold_states(*customers)
    # A refusal of the upstream, or an outage of ours, ends a hold without a charge.
    uncharged = holds.get("expired", 0) + holds.get("released", 0)
    if sum(holds.values()) != len(settled) + uncharged:
        found.append(f"{len(settled)} requests settled of these holds: {holds}")
    total = sum(settled.values())
    print(f"Books: {len(settled)} requests settled, {total} USD; {len(wrong)} unlike the bill")
    admin.check_ledger()
    return found
