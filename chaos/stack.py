"""A whole stack in a state folder of its own, and the processes that make it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tollkeeper.stack.home import find_supervisor, locate
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.servers.postgres import DATABASE, OWNER_ROLE, SERVICE_ROLE, SUPERUSER

# A stack that does not start says so by itself; this is for one that hangs.
COMMAND_TIMEOUT_S: Final = 800.0
KINDS: Final = ("envoy", "authz", "meter", "postgres", "redis")
_FOREIGN: Final = ("TOLLKEEPER_", "OPENROUTER_", "SIMULATOR_")


@dataclass(frozen=True, slots=True)
class Component:
    """One process as the supervisor last noted it."""

    name: str
    pid: int | None
    restarts: int
    is_healthy: bool


@dataclass(frozen=True, slots=True)
class ChaosStack:
    """A stack below `home`; `environment` is all that its processes are told.

    `python` is the interpreter that finds the code to run.
    """

    home: Path
    environment: Mapping[str, str] = field(repr=False)
    instances: int
    python: str = sys.executable

    def up(self) -> None:
        """Start it. Raises RuntimeError with what the command said when it does not come up."""
        many = ["--authz", str(self.instances), "--meter", str(self.instances)]
        self._run("up", "--detach", *(many if self.instances > 1 else []))

    @contextlib.contextmanager
    def running(self) -> Iterator["ChaosStack"]:
        """Start it, and end it afterwards, also where it did not come up whole.

        SIGTERM ends the process as Ctrl-C does, so that it ends the stack as well.
        """
        with _ended_by_sigterm():
            try:
                self.up()
                yield self
            finally:
                self.down()

    def down(self) -> None:
        """End it, if it runs."""
        if find_supervisor(locate(self.home)):
            self._run("down")

    def _run(self, *arguments: str) -> None:
        outcome = subprocess.run(
            [self.python, "-P", "-m", "tollkeeper", *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=dict(self.environment),
            timeout=COMMAND_TIMEOUT_S,
        )
        if outcome.returncode != 0:
            told = f"{outcome.stdout}\n{outcome.stderr}"
            raise RuntimeError(f"`tollkeeper {arguments[0]}` failed:\n{told}")

    @property
    def run_folder(self) -> Path:
        """The folder of the sockets."""
        return locate(self.home).run

    @property
    def access_log(self) -> Path:
        """Envoy's file log."""
        return locate(self.home).envoy / "access.jsonl"

    @property
    def bill(self) -> Path:
        """The upstream's own account of what it charged."""
        return locate(self.home).simulator / "bill.jsonl"

    @property
    def redis_socket(self) -> Path:
        """The socket that Redis listens on."""
        return self.run_folder / "redis.sock"

    @property
    def operator_token(self) -> str:
        """The operator token, which administrators present."""
        return locate(self.home).operator_token.read_text().strip()

    def endpoint(self, name: str) -> str:
        """The address of `gateway`, `api` or `simulator`, without a path."""
        return str(self._status()["endpoints"][name])

    def dsn(self, role: str = SUPERUSER) -> str:
        """Return the DSN with which `role` reaches the books."""
        return f"postgresql://{role}@/{DATABASE}?host={self.run_folder / 'pg'}"

    @property
    def service_dsn(self) -> str:
        """The books as authz and the meter may touch them."""
        return self.dsn(SERVICE_ROLE)

    @property
    def owner_dsn(self) -> str:
        """The books as migrations may change them."""
        return self.dsn(OWNER_ROLE)

    def components(self) -> list[Component]:
        """All of them, in the order in which they are started."""
        return [
            Component(one["component"], one["pid"], one["restarts"], one["is_healthy"])
            for one in self._status()["components"]
        ]

    def instances_of(self, kind: str) -> list[Component]:
        """The processes that do the same: `authz` may be one or several."""
        same = re.compile(rf"{kind}(\W?\d+)?")
        return [one for one in self.components() if same.fullmatch(one.name)]

    def is_well(self) -> bool:
        """Return whether every component answers."""
        return all(one.is_healthy for one in self.components())

    def ingest_sockets(self) -> list[Path]:
        """Return the sockets on which the meters take the access-log stream in."""
        return sorted(self.run_folder.glob("ingest*.sock"))

    def _status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(locate(self.home).status.read_text())
        return document


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit. A second one does not disturb what the first one ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def family_of(pid: int) -> list[psutil.Process]:
    """A process after its children, as they are now; empty where it is gone."""
    try:
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []


def signal_all(family: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each of these; those that are gone are left out."""
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def signal_family(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and its children."""
    signal_all(family_of(pid), number)


def chaos_environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what another stack would bring in, and with these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {
        "TOLLKEEPER_HOME": str(home),
        "TOLLKEEPER_PORT": str(free_port()),
        "TOLLKEEPER_API_PORT": str(free_port()),
        **settings,
    }
