"""Postings as an account sees them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts about a settled request."""

    model_id: str
    credential_id: str
    prompt_tokens: int
    completion_tokens: int
    generation_id: str | None
    request_id: UUID | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """One posting as its account sees it; `position` orders an account's postings in time."""

    id: UUID
    position: int
    template: str
    amount_picos: int
    reason: str | None
    recorded_at: datetime
    request: RequestFacts | None


@dataclass(frozen=True, slots=True)
class CreditPosted:
    """A credit or adjustment in the books, and the balance right after it.

    `expires_at` is None for credit that never expires.
    """

    id: UUID
    template: str
    amount_picos: int
    reason: str
    recorded_at: datetime
    balance_after_picos: int
    was_replayed: bool
    expires_at: datetime | None = None
