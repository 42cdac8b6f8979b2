"""What an account is told about its past: transactions, usage totals, live holds.

Views of the books, immutable and without secrets. Amounts are pico-dollars.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from meter.holds.hold import HoldState


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a settled request was about."""

    model_id: str
    credential_id: str
    prompt_tokens: int
    completion_tokens: int


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
    """A credit or adjustment in the books, and the balance right after it."""

    id: UUID
    template: str
    amount_picos: int
    reason: str
    recorded_at: datetime
    balance_after_picos: int
    was_replayed: bool


class Grouping(StrEnum):
    """By what usage is added up."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The usage records of one group, added up; `group` is a date, a model or a credential id."""

    group: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    provider_cost_picos: int
    charge_picos: int


@dataclass(frozen=True, slots=True)
class LiveHold:
    """A hold that still sets money aside, with what is known of its request."""

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
    """How many holds are live. `oldest_open_seconds` is None when none is open."""

    open: int
    unknown: int
    oldest_open_seconds: int | None
    unknown_by_reason: dict[str, int]


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """A request that a policy ended, because nothing told what it used.

    `charged_picos` was charged then, 0 where the hold was let go; `charge_picos` is what the
    request comes to now, with all that turned up later. `rule` is that of
    `meter.settlement.policy`; None where nothing was to be charged.
    """

    hold_id: UUID
    placed_at: datetime
    decided_at: datetime
    account_id: str
    model_id: str
    is_charge: bool
    held_picos: int
    charged_picos: int
    charge_picos: int
    rule: str | None
    is_corrected: bool
    generation_id: str | None


@dataclass(frozen=True, slots=True)
class SettlementConflict:
    """An arrival that contradicted the books; nothing was done but to keep it.

    `arrived` is the observation as it came; `account_id` is None for a hold that nobody knows.
    """

    id: int
    hold_id: UUID
    kind: str
    recorded_at: datetime
    account_id: str | None
    cost_picos: int | None
    arrived: Mapping[str, Any]


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
