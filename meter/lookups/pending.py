"""Looking for the usage of a request: how long before a policy decides, and what is waiting."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from meter.usage.usage import Observation

FIRST_DELAY: Final = timedelta(seconds=3)
PATIENCE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class LookupTerms:
    """`first_delay` is how long a provider needs until it has a record of a generation;
    `patience` how long after its end a request may stay unknown."""

    first_delay: timedelta = FIRST_DELAY
    patience: timedelta = PATIENCE


@dataclass(frozen=True, slots=True)
class ReportedGeneration:
    """The provider's word that this generation answered the request of this hold.

    `cost_picos` is None where it did not say what it cost.
    """

    hold_id: UUID
    generation_id: str
    cost_picos: int | None


@dataclass(frozen=True, slots=True)
class PendingLookup:
    """A request to find out about.

    `seen` is what an access log told of it, None where none did; `placed_at` is that of its hold.
    `is_overdue` says that the time to find out is over, `is_decided` that a policy has decided
    and only the truth is waited for, `has_reports` that the provider was heard to report others.
    """

    hold_id: UUID
    generation_id: str | None
    seen: Observation | None
    attempts: int
    created_at: datetime
    placed_at: datetime
    is_decided: bool
    is_overdue: bool
    is_live: bool
    is_settled: bool
    has_reports: bool
