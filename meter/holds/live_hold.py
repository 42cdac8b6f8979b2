"""Live holds, as administrators see them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from meter.holds.hold import HoldState


@dataclass(frozen=True, slots=True)
class LiveHold:
    """A hold that still sets money aside, with the known facts about its request."""

    id: UUID
    account_id: str
    credential_id: str
    model_id: str
    endpoint: str
    amount_picos: int
    state: HoldState
    unknown_reason: str | None
    generation_id: str | None
    status_code: int | None
    response_flags: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class HoldsSummary:
    """The numbers of live holds. `oldest_open_seconds` is None when none is open."""

    open: int
    unknown: int
    oldest_open_seconds: int | None
    unknown_by_reason: dict[str, int]
