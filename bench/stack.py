"""The whole system for a bench: started as a user starts it, in front of a static upstream."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tollkeeper.stack.home import locate
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.servers.postgres import DATABASE, SUPERUSER

THIS_CLONE: Final = Path(__file__).resolve().parent.parent
ACCOUNT: Final = "bench"
CREDIT_USD: Final = "100000.00"
SETTLE_TIMEOUT_S: Final = 5.0
API_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class BenchStack:
    """A running stack with one account that has credit and no request limit."""

    gateway: str
    api: str
    home: Path
    operator_token: str
    key: str

    @property
    def database(self) -> str:
        """Address of the stack's database as its superuser."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={locate(self.home).run / 'pg'}"

    def processes(self) -> dict[str, psutil.Process]:
        """The process of every component, by name."""
        status = json.loads((self.home / "status.json").read_text())
        return {one["component"]: psutil.Process(one["pid"]) for one in status["components"]}

    def wait_until_settled(self) -> None:
        """Wait until no hold is open any more, or SETTLE_TIMEOUT_S passed."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline and self.ask("GET", "/holds/summary")["open"]:
            time.sleep(0.05)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """A call to the administrators' API that must succeed; its answer."""
        request = urllib.request.Request(
            f"{self.api}/api/v1/admin{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {self.operator_token}",
                "content-type": "application/json",
                "idempotency-key": f"{path}-first",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=API_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from None

    async def verified_books(self) -> dict[str, Any]:
        """Return what the ledger says once everything is settled."""
        await asyncio.to_thread(self.wait_until_settled)
        verdict = await asyncio.to_thread(self.ask, "GET", "/ledger/verification")
        return {"is_ok": verdict["ok"], "provider_cost_usd": verdict["provider_cost_total"]}


@contextlib.asynccontextmanager
async def running_stack(
    home: Path, upstream_port: int, clone: Path = THIS_CLONE, instances: int = 1
) -> AsyncIterator[BenchStack]:
    """Start the stack of a clone with the static upstream as its provider; end it afterwards.

    It has as many authz and as many meters as there are instances.

    The clone is set up (`make setup`): its own interpreter runs its own code.
    """
    gateway_port, api_port = free_port(), free_port()
    environment = os.environ | {
        "TOLLKEEPER_HOME": str(home),
        "TOLLKEEPER_PORT": str(gateway_port),
        "TOLLKEEPER_API_PORT": str(api_port),
        "OPENROUTER_API_KEY": "sk-or-bench",
        "OPENROUTER_BASE_URL": f"http://127.0.0.1:{upstream_port}/api/v1",
    }
    scaled = ["--authz", str(instances), "--meter", str(instances)]
    await _tollkeeper(clone, "up", "--detach", *scaled, environment=environment)
    try:
        token = (home / "operator.token").read_text().strip()
        stack = BenchStack(
            f"http://127.0.0.1:{gateway_port}", f"http://127.0.0.1:{api_port}", home, token, ""
        )
        yield await asyncio.to_thread(_with_payer, stack)
    finally:
        await _tollkeeper(clone, "down", environment=environment)


def _with_payer(stack: BenchStack) -> BenchStack:
    user = {"id": ACCOUNT, "email": "bench@example.com", "plan": "unlimited"}
    stack.ask("POST", "/users", user)
    credit = {"amount": CREDIT_USD, "reason": "bench"}
    stack.ask("POST", f"/users/{ACCOUNT}/credits", credit)
    key = stack.ask("POST", f"/users/{ACCOUNT}/api-keys", {"name": "bench"})["key"]
    return BenchStack(stack.gateway, stack.api, stack.home, stack.operator_token, key)


async def _tollkeeper(clone: Path, *arguments: str, environment: dict[str, str]) -> None:
    python = sys.executable if clone == THIS_CLONE else str(clone / ".venv/bin/python")
    await asyncio.to_thread(
        subprocess.run,
        [python, "-m", "tollkeeper", *arguments],
        cwd=clone,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
