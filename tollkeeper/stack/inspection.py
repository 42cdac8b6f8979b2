"""`tollkeeper status`: the components, their health, and the number of live holds."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from meter.providers.key_refusal import KeyRefusal
from tollkeeper.stack.home import Home, find_supervisor, locate, read_operator_token
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.probes import http
from tollkeeper.stack.supervision.status import StackStatus, State, find_status

EXIT_HEALTHY = 0
EXIT_UNHEALTHY = 1
EXIT_NOT_RUNNING = 3


@dataclass(frozen=True, slots=True)
class Inspection:
    """The stack as seen from outside. `holds` is None when the meter API does not answer.

    `problems` has a sentence for each thing that runs and does not work.
    """

    status: StackStatus | None
    holds: dict[str, int] | None
    seen_at: float
    problems: tuple[str, ...] = ()
    # The mode in which credit is sold; None while none is, or while the meter API does not answer.
    selling: str | None = None

    @property
    def is_healthy(self) -> bool:
        """Return whether everything runs, answers and works."""
        return self.status is not None and self.status.is_healthy and not self.problems

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 unhealthy, 3 not running."""
        if self.status is None:
            return EXIT_NOT_RUNNING
        return EXIT_HEALTHY if self.is_healthy else EXIT_UNHEALTHY

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        status = self.status
        components = []
        for one in status.components if status else ():
            uptime_s = one.uptime_s(self.seen_at)
            components.append(
                {
                    "component": one.component,
                    "state": one.state,
                    "pid": one.pid,
                    "uptime_s": None if uptime_s is None else round(uptime_s, 1),
                    "restarts": one.restarts,
                    "last_exit": one.last_exit,
                    "is_healthy": one.is_healthy,
                }
            )
        return {
            "state": status.state if status else State.STOPPED,
            "is_healthy": self.is_healthy,
            "supervisor_pid": status.supervisor_pid if status else None,
            "endpoints": status.endpoints if status else {},
            "components": components,
            "holds": self.holds,
            "selling": self.selling,
            "problems": list(self.problems),
        }


async def inspect(settings: StackSettings) -> Inspection:
    """Inspect the stack of this state folder, running or not.

    Raises StackError when the folder cannot be read.
    """
    home = locate(settings.home)
    pid = find_supervisor(home)
    status = None if pid is None else find_status(home.status)
    # A file that a dead supervisor left says nothing about the living one.
    if pid is not None and (status is None or status.supervisor_pid != pid):
        status = StackStatus(pid, State.STARTING, time.time())
    if status is None:
        return Inspection(None, None, time.time())
    counts = await _ask(settings, home, status, "/holds/summary")
    providers = await _ask(settings, home, status, "/providers")
    selling = await _ask(settings, home, status, "/selling")
    return Inspection(
        status,
        None if counts is None else {k: n for k, n in counts.items() if isinstance(n, int)},
        time.time(),
        () if providers is None else tuple(_problems(providers)),
        None if selling is None else selling["mode"],
    )


def _problems(providers: dict[str, Any]) -> Iterator[str]:
    for provider in providers["data"]:
        name, key = provider["name"], provider["key"] or {}
        if key.get("refused_at") is not None:
            yield KeyRefusal(key["refused_status"], key["refused_reason"]).advice(name)
        failure = (provider.get("sync") or {}).get("failure")
        if provider.get("state") == "enabled" and failure is not None:
            yield f"the models of {name} cannot be taken: {failure}"


async def _ask(
    settings: StackSettings, home: Home, status: StackStatus, path: str
) -> dict[str, Any] | None:
    """Return the answer of the administrators' API; None when there is none."""
    api = status.endpoints.get("api")
    token = read_operator_token(settings.operator_token, home)
    if api is None or token is None:
        return None
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = await http("GET", f"{api}/api/v1/admin{path}", headers=headers)
        found = answer.json() if answer.status == 200 else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
