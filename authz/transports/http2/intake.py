"""The state that all connections of one server share."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from authz.transports.http2.limits import ConnectionLimits
from authz.transports.transport import Check

if TYPE_CHECKING:
    from authz.transports.http2.connection import Connection


@dataclass(slots=True, eq=False)
class Intake:
    """The handler of checks, the number under way, and the open connections."""

    check: Check
    limits: ConnectionLimits
    checks: int = 0
    is_draining: bool = False
    connections: "set[Connection]" = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        """Return whether one more check may begin."""
        return self.checks < self.limits.concurrent_checks

    def admit(self, connection: "Connection") -> bool:
        """Add a connection; return False when there is no room for it."""
        if self.is_draining or len(self.connections) >= self.limits.connections:
            return False
        self.connections.add(connection)
        return True
