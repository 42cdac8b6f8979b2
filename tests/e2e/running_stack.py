"""The whole system as a person starts it, in a state folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.patience import WAIT_S
from tollkeeper.stack.home import find_supervisor, locate

POLL_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack below `home`, told where to be by `environment` alone."""

    home: Path
    environment: dict[str, str]

    @property
    def gateway(self) -> str:
        """Envoy's address, without a path."""
        return self.endpoints["gateway"]

    @property
    def api(self) -> str:
        """The meter API's address, without a path."""
        return self.endpoints["api"]

    @property
    def simulator(self) -> str:
        """The simulator's address; its control API is at `/control`."""
        return self.endpoints["simulator"]

    @property
    def operator_token(self) -> str:
        """The operator token, which administrators present."""
        return (self.home / "operator.token").read_text().strip()

    @property
    def demo_key(self) -> str:
        """The API key of the account `demo`."""
        return (self.home / "demo.key").read_text().strip()

    @property
    def bill(self) -> Path:
        """The upstream's own account of what it charged."""
        return self.home / "simulator" / "bill.jsonl"

    @property
    def endpoints(self) -> dict[str, str]:
        """All addresses as the supervisor noted them."""
        document = json.loads((self.home / "status.json").read_text())
        return {str(name): str(url) for name, url in document["endpoints"].items()}

    @property
    def supervisor_pid(self) -> int:
        """The process that keeps everything running."""
        return int((self.home / "supervisor.pid").read_text())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`tollkeeper ARGUMENTS` as a person would run it."""
        return subprocess.run(
            [sys.executable, "-m", "tollkeeper", *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            timeout=WAIT_S,
        )

    def up(self) -> None:
        """Start it; fails the test with the reason when it does not come up."""
        outcome = self.run("up", "--detach")
        if outcome.returncode != 0:
            raise RuntimeError(f"the stack did not start:\n{outcome.stdout}\n{outcome.stderr}")

    def down(self) -> None:
        """End it and wait until it is gone."""
        self.run("down").check_returncode()

    def end(self) -> None:
        """End it if it runs."""
        if find_supervisor(locate(self.home)):
            self.down()

    def status(self) -> dict[str, Any]:
        """Return the document of `tollkeeper status --json`."""
        document: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return document

    def component(self, name: str) -> dict[str, Any]:
        """One component as the supervisor last noted it."""
        document = json.loads((self.home / "status.json").read_text())
        return next(one for one in document["components"] if one["component"] == name)

    def children(self) -> list[psutil.Process]:
        """Return the processes of all components, and theirs."""
        return psutil.Process(self.supervisor_pid).children(recursive=True)

    def require_credits(self, key: str) -> None:
        """Fail where the meter API does not tell the owner of a key its credits."""
        headers = {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{self.api}/api/v1/credits", headers=headers)
        with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
            assert reply.status == 200

    def kill(self, name: str) -> None:
        """SIGKILL one component, as a crash would."""
        os.kill(self.component(name)["pid"], signal.SIGKILL)

    def wait_restarted(self, name: str, restarts_before: int) -> None:
        """Until a killed component was started again and answers."""

        def is_back() -> bool:
            one = self.component(name)
            return bool(one["restarts"] > restarts_before and one["is_healthy"])

        wait_until(is_back, f"{name} is back")

    def wait_healthy(self) -> None:
        """Until everything runs and answers."""
        wait_until(lambda: bool(self.status()["is_healthy"]), "the stack is healthy")


def is_gone(process: psutil.Process) -> bool:
    """Return whether a process and its last thread have ended, so that its sockets are closed.

    In a container PID 1 may never ask how it ended.
    """
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until true; fails after a while, saying what was awaited."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT_S:.0f} s in vain until {what}")
        time.sleep(POLL_INTERVAL_S)


def fresh_environment(home: Path, port: int, api_port: int) -> dict[str, str]:
    """Our environment without what another stack or a provider's key would bring in."""
    foreign = ("TOLLKEEPER_", "OPENROUTER_", "SIMULATOR_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "TOLLKEEPER_HOME": str(home),
        "TOLLKEEPER_PORT": str(port),
        "TOLLKEEPER_API_PORT": str(api_port),
    }
