"""The audit log: who did what when. Lines are written with the change that they tell of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: `operator:<name>`, `key:<id>`, `identity:<id>`, `pass:<id>` or the like.

    `account_id` is theirs; None for operators.
    """

    name: str
    account_id: str | None = None


# Whoever runs a command beside the meter, or the meter itself.
SYSTEM: Final = Actor("system")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What was done, to what. `action` is `<resource>.<verb>`; `detail` never holds a secret."""

    action: str
    subject: str
    account_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the log."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    account_id: str | None
    detail: Mapping[str, Any]


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What a change changed, as a line tells it: each member that differs, from what to what."""
    return {
        name: {"from": before.get(name), "to": value}
        for name, value in after.items()
        if value != before.get(name)
    }
