"""Looking for the usage of a request: how long before a policy decides, and what is waiting."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from meter.usage.usage import Observation


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
    `own_key_of` is the account with whose own key the request was sent; None for our key.
    `provider` is the provider that the log names or, without that, the one of the hold's price.
    `is_watched` is a request that was settled by a record of 0, which may not be priced yet.
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
    provider: str
    is_watched: bool = False
    own_key_of: str | None = None


@dataclass(frozen=True, slots=True)
class LookupsSummary:
    """Requests whose usage is being found out. `overdue` ones are past their deadline; `decided`
    ones a policy charged meanwhile, and they are asked about all the same."""

    waiting: int
    without_generation_id: int
    overdue: int
    decided: int
    most_attempts: int
    oldest_seconds: int | None
