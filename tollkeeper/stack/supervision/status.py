"""Writes and reads the status file of the supervisor."""

import enum
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tollkeeper.stack.home import write_private


class State(enum.StrEnum):
    """The states of a component."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component as last seen. `started_at` is seconds since the epoch."""

    component: str
    state: State = State.WAITING
    pid: int | None = None
    started_at: float | None = None
    restarts: int = 0
    is_healthy: bool = False
    last_exit: str | None = None

    def uptime_s(self, now: float) -> float | None:
        """Seconds since the process was started."""
        return None if self.started_at is None else max(0.0, now - self.started_at)


@dataclass(frozen=True, slots=True)
class StackStatus:
    """The whole stack as last written by its supervisor."""

    supervisor_pid: int
    state: State
    written_at: float
    components: tuple[ComponentStatus, ...] = ()
    endpoints: dict[str, str] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """Return whether everything runs and answers."""
        return self.state is State.RUNNING and all(
            one.state is State.RUNNING and one.is_healthy for one in self.components
        )

    def to_json(self) -> str:
        """The document kept in status.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "StackStatus":
        """Read the document; raises ValueError when it is not one."""
        try:
            fields: dict[str, Any] = json.loads(text)
            components = tuple(
                ComponentStatus(**{**one, "state": State(one["state"])})
                for one in fields.pop("components")
            )
            return cls(**{**fields, "state": State(fields["state"]), "components": components})
        except (KeyError, TypeError) as error:
            raise ValueError("not a status document") from error


class StatusFile:
    """The one place where the state of the stack is written, atomically."""

    def __init__(self, path: Path, endpoints: dict[str, str]) -> None:
        self._path = path
        self._endpoints = endpoints
        self._state = State.STARTING
        self._components: dict[str, ComponentStatus] = {}

    def get(self, component: str) -> ComponentStatus:
        """Return the status of one component; a new one is waiting."""
        return self._components.get(component, ComponentStatus(component))

    def expect(self, names: list[str]) -> None:
        """Say in which order components will appear."""
        self._components = {name: ComponentStatus(name) for name in names}
        self.write()

    def update(self, component: str, **changes: Any) -> None:
        """Note something about one component and write it down."""
        before = self.get(component)
        after = replace(before, **changes)
        if after != before:
            self._components[component] = after
            self.write()

    def enter(self, state: State) -> None:
        """Note the state of the whole."""
        self._state = state
        self.write()

    def write(self) -> None:
        """Write what is known now."""
        status = StackStatus(
            os.getpid(),
            self._state,
            time.time(),
            tuple(self._components.values()),
            self._endpoints,
        )
        write_private(self._path, status.to_json(), is_durable=False)


def find_status(path: Path) -> StackStatus | None:
    """The last status written, or None when there is none that can be read."""
    try:
        return StackStatus.from_json(path.read_text())
    except (OSError, ValueError):
        return None


def is_same_process(component: ComponentStatus) -> bool:
    """Return whether the noted process still lives, and its number was not given to another."""
    if component.pid is None or component.started_at is None:
        return False
    try:
        process = psutil.Process(component.pid)
        # Our note is taken after the fork, so the process is never younger than it.
        tolerance_s = 2.0
        is_same = abs(process.create_time() - component.started_at) < tolerance_s
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
