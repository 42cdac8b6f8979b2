"""`tollkeeper status`: the components, their health, and the number of live holds."""

import time
from dataclasses import dataclass
from typing import Any

from tollkeeper.stack.home import Home, find_supervisor, locate, read_operator_token
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.probes import http
from tollkeeper.stack.supervision.status import StackStatus, State, find_status

EXIT_HEALTHY = 0
EXIT_UNHEALTHY = 1
EXIT_NOT_RUNNING = 3


@dataclass(frozen=True, slots=True)
class Inspection:
    """The stack as seen from outside. `holds` is None when the meter API does not answer."""

    status: StackStatus | None
    holds: dict[str, int] | None
    seen_at: float

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 unhealthy, 3 not running."""
        if self.status is None:
            return EXIT_NOT_RUNNING
        return EXIT_HEALTHY if self.status.is_healthy else EXIT_UNHEALTHY

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
            "is_healthy": bool(status and status.is_healthy),
            "supervisor_pid": status.supervisor_pid if status else None,
            "endpoints": status.endpoints if status else {},
            "components": components,
            "holds": self.holds,
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
    holds = await _find_holds(settings, home, status) if status else None
    return Inspection(status, holds, time.time())


async def _find_holds(
    settings: StackSettings, home: Home, status: StackStatus
) -> dict[str, int] | None:
    api = status.endpoints.get("api")
    token = read_operator_token(settings.operator_token, home)
    if api is None or token is None:
        return None
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = await http("GET", f"{api}/api/v1/admin/holds/summary", headers=headers)
        counts = answer.json() if answer.status == 200 else None
    except (OSError, ValueError):
        return None
    if not isinstance(counts, dict):
        return None
    return {name: count for name, count in counts.items() if isinstance(count, int)}
