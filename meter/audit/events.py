"""The audit log: who did what, and when. A line is written together with its change. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change: `operator:<name>`, `key:<id>`, `identity:<id>` or `pass:<id>`.

    `account_id` is the account that the author acts for; None for operators.
    """

    name: str
    account_id: str | None = None


# The meter itself, or a command that runs beside it.
SYSTEM: Final = Actor("system")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An event to record. `action` is `<resource>.<verb>`; `detail` never holds a secret."""

    action: str
    subject: str
    account_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the audit log."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    account_id: str | None
    detail: Mapping[str, Any]


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return each member that differs, as `{"from": ..., "to": ...}`, for an audit line."""
    return {
        name: {"from": before.get(name), "to": value}
        for name, value in after.items()
        if value != before.get(name)
    }
